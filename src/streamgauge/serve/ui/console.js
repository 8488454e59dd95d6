// The page at /: asks the HTTP API what everybody else may ask it too. Text is only ever set as text.

import { attachCompletion } from "./complete.js";
import { attachEvents } from "./events.js";
import { compact, drawGraph, seriesName } from "./graph.js";

const REFRESH_MS = 5000;
const STATUS_MS = 2000; // with which new events are noticed
const NAMES_MS = 60000;
const RATE_SECONDS = 60;
const YOUNG_SECONDS = 600;
const MOST_CURVES = 40;
const MOST_ROWS = 1000;
const PRESETS = [
  // As a share of all modes, so that it is right in the first minute too, when rates over a minute are still low.
  [
    "CPU in use, %",
    '100 * (1 - sum(rate(node_cpu_seconds_total{mode="idle"}[1m])) / sum(rate(node_cpu_seconds_total[1m])))',
  ],
  ["CPU by mode", "sum by (mode) (rate(node_cpu_seconds_total[1m]))"],
  ["Load", "node_load1"],
  ["Memory available, %", "100 * node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"],
  ["Network in, bytes/s", 'sum by (device) (rate(node_network_receive_bytes_total{device!="lo"}[1m]))'],
  ["Network out, bytes/s", 'sum by (device) (rate(node_network_transmit_bytes_total{device!="lo"}[1m]))'],
  ["Disk writes, bytes/s", "sum by (device) (rate(node_disk_written_bytes_total[1m]))"],
  ["Free space, bytes", "node_filesystem_avail_bytes"],
];
const ANY_METRIC = ["Series by metric", 'topk(25, count by (__name__) ({__name__!=""}))'];

const $ = (id) => document.getElementById(id);
const [expr, range, live] = [$("expr"), $("range"), $("live")];
const showEvents = attachEvents($("events"));
const state = { tab: "graph", names: new Set(), notes: new Map(), running: null, looks: [] };

async function api(path, parameters = {}, signal = undefined) {
  const body = new URLSearchParams(parameters);
  // The whole address: the page's own may hold a password for a proxy, with which fetch takes no relative one.
  const url = `${location.origin}/api/v1/${path}`;
  const long = body.toString().length > 1500;
  const response = await (long
    ? fetch(url, { method: "POST", body, signal })
    : fetch(body.size ? `${url}?${body}` : url, { signal }));
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`the server answered ${response.status} without saying why`);
  }
  if (answer.status !== "success") throw Object.assign(new Error(answer.error), { kind: answer.errorType });
  return answer;
}

// ---- the query and its result

async function run() {
  const query = expr.value.trim();
  remember();
  markPreset();
  state.running?.abort();
  if (!query) return show(message("Type an expression, or choose one above."));
  const asked = (state.running = new AbortController());
  const before = performance.now();
  try {
    const draw = state.tab === "graph" ? await askRange(query, asked.signal) : await askInstant(query, asked.signal);
    if (asked !== state.running) return;
    draw(performance.now() - before);
    $("problem").hidden = true;
  } catch (error) {
    if (error.name === "AbortError" || asked !== state.running) return;
    $("problem").textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    $("problem").hidden = false;
  } finally {
    if (asked === state.running) state.running = null;
  }
}

async function askRange(query, signal) {
  const seconds = Number(range.value);
  const width = Math.max(320, Math.floor($("result").clientWidth));
  const step = Math.max(1, Math.ceil(seconds / Math.min(400, width / 3)));
  // On a fine grid the points of one refresh are those of the last, so that a live curve moves and does not shimmer.
  const grid = step < 15 ? step : 1;
  const end = Math.floor(Date.now() / 1000 / grid) * grid;
  const parameters = { query, start: end - seconds, end, step, limit: MOST_CURVES };
  const answer = await api("query_range", parameters, signal);
  return (took) => {
    const { result } = answer.data;
    note(answer);
    summarise(`${count(result.length, "series", "series")}, step ${step} s, ${Math.round(took)} ms`);
    show(result.length ? drawGraph(result, query, end - seconds, end, step, width) : nothing());
  };
}

async function askInstant(query, signal) {
  const answer = await api("query", { query, limit: MOST_ROWS }, signal);
  return (took) => {
    const rows = tableRows(answer.data);
    note(answer);
    summarise(`${count(rows.length, "row", "rows")}, ${Math.round(took)} ms`);
    show(rows.length ? table(rows) : nothing());
  };
}

function tableRows({ resultType, result }) {
  if (resultType === "scalar" || resultType === "string") return [[{}, result[1]]];
  if (resultType === "matrix") {
    return result.map((one) => [one.metric, one.values.map(([time, value]) => `${value} @${time}`).join("\n")]);
  }
  return result.map((one) => [one.metric, one.value[1]]);
}

function table(rows) {
  const body = document.createElement("tbody");
  for (const [labels, value] of rows) {
    const row = body.insertRow();
    const series = row.insertCell();
    series.className = "series";
    const name = seriesName(labels);
    const brace = name.indexOf("{");
    const rest = document.createElement("em");
    rest.textContent = brace < 0 ? "" : name.slice(brace);
    series.append(brace < 0 ? name : name.slice(0, brace), rest);
    const cell = row.insertCell();
    cell.className = "value";
    cell.textContent = value;
  }
  const element = document.createElement("table");
  element.append(body);
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(element);
  return scroll;
}

function nothing() {
  return message(
    state.names.size
      ? "No series has data for this in this range."
      : "Nothing is stored yet. This host's own metrics appear within seconds, unless self-monitoring is off.",
  );
}

function message(text) {
  const paragraph = document.createElement("p");
  paragraph.className = "empty";
  paragraph.textContent = text;
  return paragraph;
}

function show(element) {
  $("result").replaceChildren(element);
}

function summarise(text) {
  $("summary").textContent = text;
}

function note(answer) {
  const notes = [...(answer.warnings ?? []), ...(answer.infos ?? [])];
  $("notes").replaceChildren(...notes.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  $("notes").hidden = notes.length === 0;
}

function count(number, one, many) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}

// ---- presets, tabs, address

function offerPresets() {
  const known = PRESETS.filter(([, query]) => (query.match(/node_\w+/g) ?? []).every((name) => state.names.has(name)));
  const offered = state.names.size ? [...known, ANY_METRIC] : [];
  $("presets").replaceChildren(...offered.map(([title, query]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.dataset.query = query;
    button.addEventListener("click", () => {
      expr.value = query;
      select(query === ANY_METRIC[1] ? "table" : "graph");
    });
    return button;
  }));
  if (!expr.value && offered.length) {
    expr.value = offered[0][1];
    select(offered[0] === ANY_METRIC ? "table" : "graph");
  }
  markPreset();
}

function markPreset() {
  for (const button of $("presets").children) {
    button.setAttribute("aria-pressed", String(button.dataset.query === expr.value.trim()));
  }
}

function select(tab) {
  state.tab = tab;
  for (const name of ["graph", "table"]) $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
  grow();
  run();
}

// The names of Prometheus' own page, so that links made for it work here.
function remember() {
  const address = new URLSearchParams();
  if (expr.value.trim()) {
    address.set("g0.expr", expr.value.trim());
    address.set("g0.tab", state.tab === "graph" ? "0" : "1");
    address.set("g0.range_input", `${range.value}s`);
  }
  history.replaceState(null, "", address.size ? `${location.pathname}?${address}` : location.pathname);
}

function recall() {
  const address = new URLSearchParams(location.search);
  expr.value = address.get("g0.expr") ?? "";
  const [, number, unit] = /^(\d+)([smhdw])$/.exec(address.get("g0.range_input") ?? "") ?? [];
  const seconds = Number(number) * { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }[unit];
  state.rangeGiven = Number.isFinite(seconds);
  const nearest = [...range.options].find((option) => Number(option.value) >= seconds);
  if (nearest) range.value = nearest.value;
  return address.get("g0.tab") === "1" ? "table" : "graph";
}

function grow() {
  expr.style.height = "auto";
  expr.style.height = `${expr.scrollHeight + 2}px`;
}

// ---- status and names

async function refreshStatus() {
  const status = $("status");
  try {
    const { data } = await api("status/runtimeinfo");
    const now = Date.parse(data.serverTime) / 1000;
    state.up = now - Date.parse(data.startTime) / 1000;
    const facts = [["Series", data.headSeries.toLocaleString()], ["Samples/s", compact(rate(data.samplesAppended, now), 3)]];
    facts.push(["Kept", data.storageRetention || "for ever"], ["Up", ago(state.up)]);
    facts.push(["Version", state.version ?? ""]);
    if (data.corruptionCount) facts.push(["Damaged files", String(data.corruptionCount)]);
    status.replaceChildren(...facts.map(fact));
    if (live.checked) showEvents(data.lastEventTime);
  } catch (error) {
    if (error.kind === "forbidden") {
      // Who is bound to labels is told nothing of the whole server, nor when its newest event came: ask each time.
      status.replaceChildren(fact(["Shown", "what you may see"]));
      if (live.checked) showEvents(performance.now());
      return;
    }
    status.replaceChildren(fact(["Server", error instanceof TypeError ? "cannot be reached" : error.message]));
  }
}

// Over the last minute, or since the start while the page is young: samples come in bursts, every 15 s at the least.
function rate(count, now) {
  if (state.looks.length && count < state.looks[0].count) state.looks = []; // the server has started anew
  state.looks = [...state.looks.filter((look) => now - look.now <= RATE_SECONDS), { count, now }];
  const first = state.looks[0];
  return now - first.now > RATE_SECONDS / 2 ? (count - first.count) / (now - first.now) : count / Math.max(1, state.up);
}

function fact([name, value]) {
  const group = document.createElement("div");
  const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  detail.textContent = value;
  group.append(term, detail);
  return group;
}

function ago(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "m"]];
  const [size, unit] = units.find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

async function refreshNames() {
  try {
    const { data } = await api("label/__name__/values");
    state.names = new Set(data);
    const metadata = (await api("metadata", { limit_per_metric: 1 })).data;
    state.notes = new Map(Object.entries(metadata).map(([name, [about]]) => [name, `${about.type}: ${about.help}`]));
  } catch {
    return; // the status line says what is wrong; what was known stays
  } finally {
    offerPresets();
  }
}

async function main() {
  const tab = recall();
  attachCompletion(expr, $("choices"), () => [...state.names].map((name) => [name, state.notes.get(name) ?? ""]));
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  expr.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    run();
  });
  expr.addEventListener("input", grow);
  expr.addEventListener("change", grow);
  range.addEventListener("change", run);
  $("tab-graph").addEventListener("click", () => select("graph"));
  $("tab-table").addEventListener("click", () => select("table"));
  state.version = (await api("status/buildinfo").catch(() => null))?.data.productVersion;
  await Promise.all([refreshStatus(), refreshNames()]);
  if (!state.rangeGiven && state.up < YOUNG_SECONDS) range.value = range.options[0].value;
  select(expr.value ? tab : state.tab);
  addEventListener("resize", () => live.checked && run());
  setInterval(() => {
    if (document.hidden) return;
    if (live.checked && state.running === null) run();
    if (state.names.size === 0) refreshNames();
  }, REFRESH_MS);
  setInterval(() => document.hidden || refreshStatus(), STATUS_MS);
  setInterval(() => document.hidden || refreshNames(), NAMES_MS);
}

main();

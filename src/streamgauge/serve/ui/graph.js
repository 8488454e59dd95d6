// A line graph of a range query's matrix, drawn as SVG. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 360;
const MARGIN = { top: 14, right: 16, bottom: 26, left: 62 };
const COLOURS = 10;

/** A number for people: at most `digits` significant digits, with k, M, G … for large ones. */
export function compact(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "Inf");
  const size = Math.abs(value);
  const units = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [scale, unit] = units.find(([least]) => size >= least) ?? [1, ""];
  if (size !== 0 && size < 1e-4) return value.toExponential(2);
  return String(Number((value / scale).toPrecision(digits))) + unit;
}

/** The text of a label set, as PromQL writes it. */
export function seriesName(labels) {
  const { __name__: name = "", ...rest } = labels;
  const plain = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
  const pairs = Object.entries(rest).map(([key, value]) => `${plain.test(key) ? key : JSON.stringify(key)}=${JSON.stringify(value)}`);
  return pairs.length || !name ? `${name}{${pairs.join(", ")}}` : name;
}

/** Returns an element that shows `series` ([{metric, values}]) of `query` between `start` and `end`, in seconds. */
export function drawGraph(series, query, start, end, step, width) {
  const figure = document.createElement("figure");
  const curves = series.map((one) => one.values.map(([time, text]) => [time, parse(text)]));
  const scale = makeScale(curves, start, end, width);
  const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  svg.append(...gridLines(scale, start, end, width));
  const paths = curves.map((points, index) => {
    const path = make("path", { class: "curve", d: outline(points, scale, step) });
    path.style.stroke = colour(index);
    return path;
  });
  svg.append(...paths);
  const cursor = make("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
  cursor.setAttribute("visibility", "hidden");
  svg.append(cursor);
  const legend = makeLegend(series, query, curves, paths, svg);
  figure.append(svg, legend.list);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const time = scale.time(((event.clientX - box.left) / box.width) * width);
    cursor.setAttribute("visibility", "visible");
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, scale.x(time));
    legend.show(time, step);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    legend.show(null, step);
  });
  return figure;
}

function parse(text) {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function colour(index) {
  return `var(--s${index % COLOURS})`;
}

function makeScale(curves, start, end, width) {
  let low = Infinity;
  let high = -Infinity;
  for (const points of curves) {
    for (const [, value] of points) {
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) [low, high] = [0, 1];
  // A range that comes close to zero shows it, so that small wiggles do not look like storms.
  if (low > 0 && low < (high - low) * 2) low = 0;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const unit = niceStep((high - low) / 5);
  low = Math.floor(low / unit) * unit;
  high = Math.ceil(high / unit) * unit;
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  return {
    low, high, unit,
    x: (time) => MARGIN.left + ((time - start) / (end - start)) * inner.width,
    y: (value) => MARGIN.top + (1 - (value - low) / (high - low)) * inner.height,
    time: (x) => Math.min(end, Math.max(start, start + ((x - MARGIN.left) / inner.width) * (end - start))),
  };
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999);
  return factor * power;
}

function gridLines(scale, start, end, width) {
  const parts = [];
  const count = Math.round((scale.high - scale.low) / scale.unit);
  for (let line = 0; line <= count; line += 1) {
    const value = scale.low + line * scale.unit;
    const y = scale.y(value);
    parts.push(make("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    parts.push(label(MARGIN.left - 8, y + 4, "end", compact(Math.abs(value) < scale.unit / 1e6 ? 0 : value, 6)));
  }
  const seconds = [1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800];
  const every = seconds.find((one) => (end - start) / one <= Math.max(3, width / 130)) ?? 2592000;
  const zone = new Date(start * 1000).getTimezoneOffset() * 60;
  for (let time = Math.ceil((start - zone) / every) * every + zone; time <= end; time += every) {
    parts.push(label(scale.x(time), HEIGHT - 8, "middle", clock(time, every)));
  }
  return parts;
}

function label(x, y, anchor, text) {
  const element = make("text", { class: "tick", x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

function clock(time, every) {
  const date = new Date(time * 1000);
  if (every >= 86400) return date.toLocaleDateString([], { month: "short", day: "numeric" });
  const format = { hour: "2-digit", minute: "2-digit", hour12: false };
  return date.toLocaleTimeString([], every < 60 ? { ...format, second: "2-digit" } : format);
}

function outline(points, scale, step) {
  let path = "";
  let last = null;
  for (const [time, value] of points) {
    if (!Number.isFinite(value)) {
      last = null;
      continue;
    }
    const joined = last !== null && time - last <= step * 1.5;
    // A point without neighbours is a line of no length, which its round ends make visible.
    path += `${joined ? "L" : "M"}${scale.x(time).toFixed(1)} ${scale.y(value).toFixed(1)}${joined ? "" : "h0"}`;
    last = time;
  }
  return path;
}

function makeLegend(series, query, curves, paths, svg) {
  const list = document.createElement("ul");
  list.className = "legend";
  const values = series.map((one, index) => {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.style.background = colour(index);
    const name = document.createElement("span");
    name.textContent = Object.keys(one.metric).length ? seriesName(one.metric) : query;
    const value = document.createElement("b");
    item.append(swatch, name, value);
    item.addEventListener("pointerenter", () => {
      svg.classList.add("faded");
      paths[index].classList.add("on");
    });
    item.addEventListener("pointerleave", () => {
      svg.classList.remove("faded");
      paths[index].classList.remove("on");
    });
    list.append(item);
    return value;
  });
  function show(time, step) {
    curves.forEach((points, index) => {
      const point = time === null ? points.at(-1) : points.find(([at]) => Math.abs(at - time) <= step / 2);
      values[index].textContent = point ? compact(point[1], 5) : "";
    });
  }
  show(null, 0);
  return { list, show };
}

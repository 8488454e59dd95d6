// The newest events below the graph, asked in the SQL that everybody else may ask, too. Text is only ever set as text.

const QUERY = `SELECT insert_datetime, severity, coalesce(payload->>'message', payload->>'msg', name), left(payload, 1000)
FROM events ORDER BY insert_datetime DESC, stream_id DESC, stream_event_index DESC LIMIT 20`;
const BAD = /^(ERR|CRIT|FATAL|ALERT|EMERG)/;

// A function that shows what there is when it is told the time of the newest event, null while there is none.
export function attachEvents(section) {
  let shown; // the time of the newest event that is shown
  let asking = false;
  return async (newest) => {
    if (asking || newest === shown) return;
    asking = true;
    try {
      const rows = newest === null ? [] : await ask();
      section.replaceChildren(rows.length ? table(rows) : hint());
      shown = newest;
    } catch (error) {
      section.replaceChildren(paragraph(error instanceof TypeError ? "The server cannot be reached." : error.message));
    } finally {
      asking = false;
    }
  };
}

async function ask() {
  const headers = { "Content-Type": "application/sql" };
  const response = await fetch(`${location.origin}/api/v1/sql`, { method: "POST", headers, body: QUERY });
  const answer = await response.json();
  if (answer.status !== "success") throw new Error(answer.error);
  return answer.data.rows;
}

function table(rows) {
  const body = document.createElement("tbody");
  for (const [time, severity, message, payload] of rows) {
    const row = body.insertRow();
    const [when, level, what] = [row.insertCell(), row.insertCell(), row.insertCell()];
    when.className = "when";
    when.textContent = new Date(time).toLocaleTimeString();
    when.title = time;
    level.textContent = severity ?? "";
    if (BAD.test(severity ?? "")) level.className = "bad";
    what.className = "series";
    what.title = "Click for all of it";
    what.addEventListener("click", () => what.classList.toggle("whole"));
    const rest = document.createElement("em");
    rest.textContent = payload;
    what.append(...(message === null ? [rest] : [`${message} `, rest]));
  }
  const element = document.createElement("table");
  element.append(body);
  return element;
}

function hint() {
  const element = paragraph("None yet. Send one: ");
  const code = document.createElement("code");
  code.textContent = `curl -d '{"level":"info","message":"hello"}' ${location.origin}/`;
  element.append(code);
  return element;
}

function paragraph(text) {
  const element = document.createElement("p");
  element.textContent = text;
  return element;
}

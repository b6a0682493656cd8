// The event log: what went over the data channel, each line openable to its JSON. Drawing costs what is new, not what is there.

import { eventsKept } from "./call.js";
import { element, find, setText } from "./elements.js";

let source = null;     // the call whose log is drawn
let drawn = 0;         // of all that it ever logged

export function drawLog(call) {
  const list = find("events");
  if (call !== source) {
    [source, drawn] = [call, 0];
    list.replaceChildren();
    drawCount();
  }
  const news = Math.min((call?.logged ?? 0) - drawn, eventsKept);
  if (!news) return;
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const entry of call.log.slice(-news)) list.append(makeRow(entry));
  drawn = call.logged;
  while (list.children.length > eventsKept) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
  drawCount();
}

function makeRow(entry) {
  const row = element("li", `entry ${entry.direction}${entry.event.type === "error" ? " error" : ""}`);
  row.entry = entry;
  const details = element("details", "");
  const summary = element("summary", "");
  const arrow = element("span", "direction", entry.direction === "in" ? "↓" : "↑");
  arrow.setAttribute("aria-label", entry.direction === "in" ? "received" : "sent");
  arrow.setAttribute("role", "img");
  summary.append(
    element("span", "time", (entry.at / 1000).toFixed(3)), arrow, element("span", "type", entry.event.type ?? "(no type)"),
    element("span", "gist", gist(entry.event)));
  details.append(summary);
  // Most are never opened, so most are never printed.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length < 2) details.append(element("pre", "", JSON.stringify(entry.event, null, 2)));
  });
  row.append(details);
  row.hidden = !passes(entry);
  return row;
}

/// The one thing that a reader would open the event for.
function gist(event) {
  if (event.error) return event.error.message ?? "";
  if (event.response?.status) return event.response.status;
  for (const field of ["delta", "transcript", "text"]) if (typeof event[field] === "string") return event[field];
  for (const field of ["audio_start_ms", "audio_end_ms"]) if (field in event) return `${event[field]} ms`;
  return event.item?.role ?? event.item?.type ?? "";
}

function passes({ direction, event }) {
  const wanted = find("log-direction").value;
  const words = find("log-filter").value.trim().toLowerCase();
  return (wanted === "all" || wanted === direction) && (!words || JSON.stringify(event).toLowerCase().includes(words));
}

function drawCount() {
  const rows = [...find("events").children];
  const visible = rows.filter((row) => !row.hidden).length;
  setText("log-count", visible === rows.length ? `${rows.length}` : `${visible} of ${rows.length}`);
}

export function buildLog() {
  const filter = () => {
    for (const row of find("events").children) row.hidden = !passes(row.entry);
    drawCount();
  };
  find("log-filter").addEventListener("input", filter);
  find("log-direction").addEventListener("change", filter);
  find("log-clear").addEventListener("click", () => {
    find("events").replaceChildren();
    drawCount();
  });
  find("log-copy").addEventListener("click", copy);
}

/// As JSON lines, for a bug report.
async function copy() {
  const rows = [...find("events").children].filter((row) => !row.hidden);
  const lines = rows.map(({ entry }) => JSON.stringify({ seconds: entry.at / 1000, direction: entry.direction, ...entry.event }));
  try {
    await navigator.clipboard.writeText(`${lines.join("\n")}\n`);
    setText("log-copy", "Copied");
  } catch {
    setText("log-copy", "Not allowed");
  }
  setTimeout(() => setText("log-copy", "Copy"), 1500);
}

// The conversation as bubbles.

import { cutText } from "./conversation.js";
import { element, find, setText } from "./elements.js";

const names = {
  user: "You", assistant: "Answer", system: "System", notice: "Server",
  function_call: "Function call", function_call_output: "Function result",
};

export function drawTranscript(items) {
  const list = find("transcript");
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const rows = new Map([...list.children].map((row) => [row.item, row]));
  items.forEach((item, index) => {
    const row = rows.get(item) ?? makeRow(item);
    rows.delete(item);
    drawRow(row, item);
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  for (const row of rows.values()) row.remove();
  find("transcript-empty").hidden = items.length > 0;
  if (follows) list.scrollTop = list.scrollHeight;
}

function makeRow(item) {
  const row = element("li", `bubble ${names[item.role] ? item.role : "other"}`);
  row.item = item;
  const text = element("p", "text");
  text.append(element("span", "heard"), element("del", "lost"));
  row.append(element("span", "who", names[item.role] ?? item.role), text, element("p", "fate"));
  return row;
}

function drawRow(row, item) {
  const { heard, lost } = cutText(item);
  row.dataset.state = item.playedMilliseconds === null ? item.state : "cut";
  setText(row.querySelector(".heard"), heard || placeholder(item));
  row.classList.toggle("wordless", !heard && !lost);
  const del = row.querySelector(".lost");
  setText(del, lost);
  del.title = "Not heard. Which words they are is estimated from the time at which the answer was cut off.";
  setText(row.querySelector(".fate"), fate(item));
}

function placeholder({ role, state, isSpoken, playedMilliseconds }) {
  if (playedMilliseconds !== null) return "";
  if (state === "speaking") return role === "user" ? "speaking" : "…";
  return isSpoken ? "spoken" : "";
}

function fate({ state, playedMilliseconds }) {
  if (playedMilliseconds !== null) return `Interrupted after ${(playedMilliseconds / 1000).toFixed(1)} s`;
  return state === "incomplete" ? "Cancelled" : "";
}

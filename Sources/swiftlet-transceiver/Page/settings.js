// How turns are found: a form that becomes `session.update`, and shows what the server made of it.

import { find } from "./elements.js";

/// Field of the form → field of `turn_detection`.
const fields = {
  "vad-threshold": "threshold",
  "vad-prefix": "prefix_padding_ms",
  "vad-silence": "silence_duration_ms",
  "vad-idle": "idle_timeout_ms",
  "vad-interrupt": "interrupt_response",
  "vad-create": "create_response",
};

const parameter = "session.audio.input.turn_detection";

let wasTouched = false;   // by the person: then the form is right, else the server
let updates = 0;
let lastUpdate = null;    // event_id

export const isPushToTalk = () => find("turn-mode-hold").checked;

/// What the form says, as the API's `turn_detection`.
export function turnDetection() {
  if (isPushToTalk()) return null;
  const detection = { type: "server_vad" };
  for (const [id, name] of Object.entries(fields)) {
    const input = find(id);
    // Not clamped: the server says what it takes.
    if (input.type === "checkbox") detection[name] = input.checked;
    else detection[name] = input.value === "" ? (id === "vad-idle" ? null : Number(input.defaultValue)) : Number(input.value);
  }
  return detection;
}

/// `changed` is called with each `session.update` that the form has led to.
export function buildSettings(changed) {
  find("settings").addEventListener("input", drawForm);
  find("settings").addEventListener("change", () => {
    wasTouched = true;
    drawForm();
    changed(update());
  });
  find("settings").addEventListener("submit", (event) => event.preventDefault());
  drawForm();
}

function update() {
  lastUpdate = `settings_${++updates}`;
  const session = { type: "realtime", audio: { input: { turn_detection: turnDetection() } } };
  return { type: "session.update", event_id: lastUpdate, session };
}

/// Takes an event of the server; the update that it calls for, or null.
export function takeSession(event) {
  if (event.type === "error" && event.error?.event_id === lastUpdate && lastUpdate) markRefused(event.error.param ?? "");
  if (event.type === "session.created" && wasTouched) return update();
  if (event.type === "session.created" || event.type === "session.updated") show(event.session?.audio?.input?.turn_detection);
  return null;
}

function show(detection) {
  if (detection === undefined || (detection !== null && detection.type !== "server_vad")) return;
  find(detection === null ? "turn-mode-hold" : "turn-mode-auto").checked = true;
  for (const [id, name] of Object.entries(fields)) {
    const input = find(id);
    input.removeAttribute("aria-invalid");
    if (detection === null || input === document.activeElement) continue;
    if (input.type === "checkbox") input.checked = detection[name];
    else input.value = detection[name] ?? "";
  }
  drawForm();
}

function markRefused(name) {
  for (const [id, field] of Object.entries(fields)) {
    if (name === `${parameter}.${field}`) find(id).setAttribute("aria-invalid", "true");
  }
}

function drawForm() {
  find("vad-fields").disabled = isPushToTalk();
  find("vad-threshold-value").textContent = Number(find("vad-threshold").value).toFixed(2);
  document.body.dataset.turns = isPushToTalk() ? "hold" : "auto";
}

// What hands can do during a call: hold a button to talk, write instead of speaking, ask for an answer, stop one.

import { find } from "./elements.js";
import { isPushToTalk } from "./settings.js";

/// The last syllable is still on its way when the button comes up.
const tailMilliseconds = 200;

/// The `event_id` of every cancellation that this page sends by itself.
export const cancelID = "page_cancel";

let heldBy = null;        // the call that hears the held button
let release = null;       // the timer that ends it

/// `current()` is the call, or null.
export function buildTalk(current) {
  const button = find("talk");
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    press(current());
  });
  for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, letGo);
  // A screen reader clicks without pointer or key: then one click begins and the next one ends.
  button.addEventListener("click", (event) => {
    if (event.detail !== 0 || event.pointerType) return;
    if (heldBy) letGo();
    else press(current());
  });
  button.addEventListener("keydown", (event) => holdByKey(event, ["Space", "Enter"], () => press(current())));
  button.addEventListener("keyup", (event) => holdByKey(event, ["Space", "Enter"], letGo));
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    write(current());
  });
  find("answer-now").addEventListener("click", () => current()?.send({ type: "response.create" }));
  find("answer-stop").addEventListener("click", () => stopAnswer(current()));
}

/// The space bar anywhere on the page, while push-to-talk is chosen. True when the key was meant for us.
export function holdSpace(event, call) {
  if (!isPushToTalk() || !call) return false;
  return holdByKey(event, ["Space"], event.type === "keydown" ? () => press(call) : letGo);
}

function holdByKey(event, keys, action) {
  if (!keys.includes(event.code)) return false;
  event.preventDefault();
  if (!event.repeat) action();
  return true;
}

function press(call) {
  if (release) endTurn();          // pressed again within the tail: that was the end of the turn before
  if (heldBy || call?.channel?.readyState !== "open") return;
  heldBy = call;
  stopAnswer(call);
  call.send({ type: "input_audio_buffer.clear" });
  call.conversation.pressed(performance.now());
  settleMicrophone(call);
  drawHeld();
  call.changed();
}

function letGo() {
  if (!heldBy || release) return;
  heldBy.conversation.released(performance.now(), heldBy.yourEar?.lastLoudAt);
  release = setTimeout(endTurn, tailMilliseconds);
  heldBy.changed();
}

function endTurn() {
  clearTimeout(release);
  release = null;
  const call = heldBy;
  heldBy = null;
  drawHeld();
  if (call.isOver) return;
  settleMicrophone(call);
  call.send({ type: "input_audio_buffer.commit" });
  call.send({ type: "response.create" });
}

/// The microphone of a person who does not hold the button hears nothing.
export function settleMicrophone(call) {
  call.isMuted = isPushToTalk() && heldBy !== call;
}

function drawHeld() {
  find("talk").setAttribute("aria-pressed", String(heldBy !== null));
  find("talk").textContent = heldBy ? "Listening. Let go to send." : "Hold to talk";
}

function stopAnswer(call) {
  const { open, playing } = call?.conversation ?? {};
  // The response may end while this is on its way: then its refusal is no news for anybody.
  if (open) call.send({ type: "response.cancel", event_id: cancelID });
  if (open || playing) call.send({ type: "output_audio_buffer.clear" });
}

function write(call) {
  const text = find("text").value.trim();
  if (!text || !call) return;
  const content = [{ type: "input_text", text }];
  stopAnswer(call);
  if (!call.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } })) return;
  call.send({ type: "response.create" });
  find("text").value = "";
}

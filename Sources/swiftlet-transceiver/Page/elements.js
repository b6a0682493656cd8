// Small things that everything which draws needs.

export const find = (id) => document.getElementById(id);

export function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/// Screen readers announce a live region on every write, and selections are lost by one, so only real changes are written.
export function setText(target, text) {
  const changed = typeof target === "string" ? find(target) : target;
  if (changed.textContent !== text) changed.textContent = text;
}

export function milliseconds(value) {
  return `${Math.round(value)} ms`;
}

/// "3.2 s"
export function seconds(value) {
  return `${(value / 1000).toFixed(1)} s`;
}

// One table of keys for the page that is open: it works them and it is what the help shows.

import { h, replace } from "./dom.js";

let bindings = [];

// What the page that is open says against being left by a key; "" where it says nothing.
export const leaving = { objection: () => "" };

// rows: [key or list of keys, what it does, function, more]. "Ctrl+z" and "Shift+ArrowLeft" as written.
// more.held: a key that is held down does it again and again; others act once, however long they are held.
// more.always: also while the help is open.
export function bind(rows) {
  bindings = bindings.concat(rows.map(([keys, text, run, more = {}]) => ({ keys: [keys].flat(), text, run, ...more })));
}

function name(event) {
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  let key = event.key === " " ? "Space" : event.key;
  // Caps lock must not make another key of a letter.
  if (key.length === 1 && event.getModifierState("CapsLock")) key = event.shiftKey ? key.toUpperCase() : key.toLowerCase();
  return control + shift + key;
}

function writing(element) {
  if (element.isContentEditable || element.tagName === "TEXTAREA" || element.tagName === "SELECT") return true;
  return element.tagName === "INPUT" && !["range", "checkbox", "radio", "button"].includes(element.type);
}

const OWN = { BUTTON: ["Space", "Enter"], A: ["Enter"], SUMMARY: ["Space", "Enter"], INPUT: ["Space"] };

function pressed(event) {
  if (event.defaultPrevented || event.altKey) return;
  const key = name(event);
  const at = event.target;
  if (document.querySelector("dialog[open]")) {
    // Not prevented: Escape closes the help as well.
    if (!event.repeat) bindings.find((binding) => binding.always && binding.keys.includes(key))?.run(event);
    return;
  }
  if (writing(at)) {
    if (key === "Escape") at.blur();
    return;
  }
  if (at.type !== "range" && (OWN[at.tagName] || []).includes(key)) {
    if (event.repeat && key === "Enter") event.preventDefault(); // browsers press the button again each time
    return;
  }
  const found = bindings.find((binding) => binding.keys.includes(key));
  if (!found) return;
  event.preventDefault();
  if (!event.repeat || found.held) found.run(event);
}

const SHOWN = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  "Shift+ArrowLeft": "Shift ←", "Shift+ArrowRight": "Shift →", "Ctrl+z": "Ctrl Z",
};

export function start() {
  const dialog = document.getElementById("keys");
  const open = () => {
    replace(document.getElementById("keys-list"), bindings.filter((b) => b.text).flatMap((b) => [
      h("dt", {}, b.keys.map((key) => h("kbd", {}, SHOWN[key] || key))), h("dd", {}, b.always ? `${b.text} (also while this list is open)` : b.text)]));
    dialog.showModal();
    dialog.scrollTop = 0; // it would begin at the button that has the focus
  };
  document.getElementById("keys-button").addEventListener("click", open);
  document.addEventListener("keydown", pressed);
  bind([["?", "this list", open]]);
}

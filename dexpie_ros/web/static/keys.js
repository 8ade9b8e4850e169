// One table of keys for the page that is open: it works them and it is what the help shows.

import { h, replace } from "./dom.js";

let bindings = [];

// rows: [key or list of keys, what it does, function]. "Ctrl+z" and "Shift+ArrowLeft" as written.
export function bind(rows) {
  bindings = bindings.concat(rows.map(([keys, text, run]) => ({ keys: [keys].flat(), text, run })));
}

function name(event) {
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  return control + shift + (event.key === " " ? "Space" : event.key);
}

function writing(element) {
  if (element.isContentEditable || element.tagName === "TEXTAREA" || element.tagName === "SELECT") return true;
  return element.tagName === "INPUT" && !["range", "checkbox", "radio", "button"].includes(element.type);
}

const OWN = { BUTTON: ["Space", "Enter"], A: ["Enter"], SUMMARY: ["Space", "Enter"], INPUT: ["Space"] };

function pressed(event) {
  if (event.defaultPrevented || event.altKey || document.querySelector("dialog[open]")) return;
  const key = name(event);
  const at = event.target;
  if (writing(at)) {
    if (key === "Escape") at.blur();
    return;
  }
  if (at.type !== "range" && (OWN[at.tagName] || []).includes(key)) return;
  const found = bindings.find((binding) => binding.keys.includes(key));
  if (!found) return;
  event.preventDefault();
  found.run(event);
}

const SHOWN = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  "Shift+ArrowLeft": "Shift ←", "Shift+ArrowRight": "Shift →", "Ctrl+z": "Ctrl Z",
};

export function start() {
  const dialog = document.getElementById("keys");
  const open = () => {
    replace(document.getElementById("keys-list"), bindings.filter((b) => b.text).flatMap((b) => [
      h("dt", {}, b.keys.map((key) => h("kbd", {}, SHOWN[key] || key))), h("dd", {}, b.text)]));
    dialog.showModal();
  };
  document.getElementById("keys-button").addEventListener("click", open);
  document.addEventListener("keydown", pressed);
  bind([["?", "this list", open]]);
}

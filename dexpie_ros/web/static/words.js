// How the same things are called on every page.

import { h } from "./dom.js";

const OUTCOMES = {
  success: ["✓", "success", "good"],
  failure: ["✗", "failure", "bad"],
  aborted: ["–", "aborted", "soft"],
  "": ["?", "not judged", "soft"],
};

export function outcome(name, cause = "") {
  const [sign, word, style] = OUTCOMES[name] || OUTCOMES[""];
  return h("span", { class: `outcome ${style}` },
    h("span", { "aria-hidden": "true" }, sign), ` ${word}`, cause ? h("span", { class: "cause" }, cause) : null);
}

// A policy may be known by the path it was loaded from: its end tells it apart.
export function policy(id) {
  if (!id) return "";
  const parts = id.split("/").filter((part) => part && part !== "policy");
  return parts.slice(-1)[0] || id;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}

export function minutes(seconds) {
  return seconds < 90 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
}

export function day(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? "" : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

export const link = (name, step) =>
  `/episode?${new URLSearchParams(step ? { id: name, step } : { id: name })}`;

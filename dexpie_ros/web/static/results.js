// Reports and figures of experiments, benchmarks and demo runs.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { day } from "./words.js";

export async function show(main) {
  const list = await get("/api/results");
  replace(main, h("h1", {}, "Results"),
    h("p", { class: "note" }, `report.html and results.json below ${list.roots.join(", ")}`),
    list.files.length ? h("ul", { class: "results" }, list.files.map(item))
      : h("p", {}, "Nothing yet. `dexpie demo`, `dexpie evaluate` and `dexpie experiment` write reports."));
}

function item(file) {
  const about = h("span", { class: "note below" }, `${day(file.time)} · ${(file.bytes / 1024).toFixed(0)} kB`);
  if (file.kind === "report") {
    return h("li", {}, h("a", { href: `/report?${new URLSearchParams({ name: file.name })}` }, `${file.folder}/${file.file}`), about);
  }
  const place = h("div", { class: "scroll" });
  const details = h("details", { ontoggle: async () => {
    if (!details.open || place.childElementCount) return;
    try {
      replace(place, tree(await get("/api/figures", { name: file.name }), 0));
    } catch (error) {
      replace(place, h("p", { class: "error", role: "alert" }, error.message));
    }
  } }, h("summary", {}, `${file.folder}/${file.file}`), place);
  return h("li", {}, details, about);
}

function tree(value, depth) {
  if (value === null || typeof value !== "object") {
    return h("span", {}, typeof value === "number" && !Number.isInteger(value) ? `${Number(value.toPrecision(6))}` : String(value));
  }
  const entries = Object.entries(value);
  if (Array.isArray(value) && value.every((v) => v === null || typeof v !== "object")) {
    const shown = value.slice(0, 40).map((v) => (typeof v === "number" ? Number(v.toPrecision(6)) : v)).join(", ");
    return h("span", {}, value.length > 40 ? `${shown}, … (${value.length} values)` : shown);
  }
  if (depth > 8) return h("span", {}, "…");
  const some = entries.slice(0, 500);
  return h("dl", { class: "tree" }, some.flatMap(([key, inner]) => [h("dt", {}, key), h("dd", {}, tree(inner, depth + 1))]),
    entries.length > 500 ? h("dd", {}, `… ${entries.length - 500} more`) : null);
}

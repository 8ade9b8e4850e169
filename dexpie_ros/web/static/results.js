// Reports and figures of experiments, benchmarks and demo runs.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { day } from "./words.js";

export async function show(main) {
  const list = await get("/api/results");
  replace(main, h("h1", {}, "Results"),
    h("p", { class: "note" }, `report.html, results.json and what dexpie bench wrote, below ${list.roots.join(", ")}`),
    list.files.length ? h("ul", { class: "results" }, list.files.map(item))
      : h("p", {}, "Nothing yet. `dexpie demo`, `dexpie evaluate` and `dexpie experiment` write reports, `dexpie bench` figures."));
}

// What was measured, one row for each.
function figures(values) {
  const shown = (v) => (typeof v === "number" ? `${Number(v.toPrecision(4))}` : typeof v === "object" ? JSON.stringify(v) : String(v));
  const rows = Object.entries(values).slice(0, 500);
  return h("table", { class: "figures" }, h("thead", {}, h("tr", {}, ["Figure", "Value"].map((text, i) => h("th", { scope: "col", class: i ? "number" : "" }, text)))),
    h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", { class: "number" }, shown(value))))));
}

function item(file) {
  const bench = file.kind === "bench";
  const when = bench ? [`measured ${file.date}`, file.commit && `commit ${file.commit}`, file.quick && "a quick look only", `${file.folder}/${file.file}`]
    : [day(file.time), `${(file.bytes / 1024).toFixed(0)} kB`];
  const about = h("span", { class: "note below" }, when.filter(Boolean).join(" · "));
  if (file.kind === "report") {
    return h("li", {}, h("a", { href: `/report?${new URLSearchParams({ name: file.name })}` }, `${file.folder}/${file.file}`), about);
  }
  const place = h("div", { class: "scroll" });
  const details = h("details", { ontoggle: async () => {
    if (!details.open || place.childElementCount) return;
    try {
      const values = await get("/api/figures", { name: file.name });
      replace(place, bench ? figures(values.figures) : tree(values, 0));
    } catch (error) {
      replace(place, h("p", { class: "error", role: "alert" }, error.message));
    }
  } }, h("summary", {}, bench ? `Benchmark: ${file.bench}` : `${file.folder}/${file.file}`), place);
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

// Two episodes beside each other: a failure and its correction, or two policies on one start.

import { get } from "./api.js";
import { choice, field, h, replace } from "./dom.js";
import { bind } from "./keys.js";
import { Cameras, Player, controls, playerKeys } from "./player.js";
import { Timeline } from "./timeline.js";
import { link, outcome, policy } from "./words.js";

export async function show(main, query) {
  const { episodes } = await get("/api/episodes");
  const whole = episodes.filter((row) => row.status !== "broken");
  const pairs = [...pairsOf(whole), ...startsOf(whole)];
  let chosen = pairs.findIndex((pair) => query.get("pair") && pair.key === query.get("pair"));
  if (query.get("a") && query.get("b")) {
    const of = (name) => whole.find((row) => row.name === name);
    const [a, b] = [of(query.get("a")), of(query.get("b"))];
    if (a && b) { pairs.unshift({ text: `${a.id} and ${b.id}`, a, b }); chosen = 0; }
  }
  if (!pairs.length) {
    replace(main, h("h1", {}, "Compare"), h("p", {}, "Nothing to compare: no two episodes share a pair id, or a start (seed) with different policies."));
    return;
  }
  const place = h("div", { class: "compare" });
  const select = choice(pairs.map((pair, i) => [String(i), pair.text]), String(Math.max(0, chosen)), (i) => open(place, pairs[Number(i)]));
  replace(main, h("h1", {}, "Compare"), field("Which two", select), place);
  const other = (by) => {
    select.value = String(Math.max(0, Math.min(pairs.length - 1, Number(select.value) + by)));
    open(place, pairs[Number(select.value)]);
  };
  bind([["j", "next two", () => other(1), { held: true }], ["k", "the two before", () => other(-1), { held: true }]]);
  playerKeys(shared, bind);
  await open(place, pairs[Math.max(0, chosen)]);
}

// A failed episode first, then what was recorded to correct it.
function pairsOf(rows) {
  const groups = gather(rows.filter((row) => row.pair), (row) => row.pair);
  return [...groups].flatMap(([key, members]) => {
    const correction = members.find((row) => row.kind === "correction");
    const failed = members.find((row) => row !== correction);
    return correction && failed ? [{ key, text: `${key}: ${failed.id} (${failed.outcome || "?"}) and its correction`, a: failed, b: correction }] : [];
  });
}

function gather(rows, by) {
  const groups = new Map();
  for (const row of rows) groups.set(by(row), [...(groups.get(by(row)) || []), row]);
  return groups;
}

function startsOf(rows) {
  const starts = rows.filter((row) => row.seed >= 0 && ["deployment", "evaluation"].includes(row.kind));
  const groups = gather(starts, (row) => `${row.task} ${row.stage} ${row.seed}`);
  return [...groups].flatMap(([key, members]) => {
    const first = members[0];
    return members.filter((row) => row.policy !== first.policy).map((row) => ({
      key: "", text: `start ${key.trim()}: ${policy(first.policy) || "no policy"} and ${policy(row.policy) || "no policy"}`, a: first, b: row }));
  });
}

// One clock for both: the longer one's. The keys hold on to it over changes of the pair.
const shared = {
  toggle: (...args) => shared.player?.toggle(...args), seek: (step) => shared.player?.seek(step), by: (t) => shared.player?.by(t),
  faster: (by) => shared.player?.faster(by),
  get step() { return this.player?.step ?? 0; }, get last() { return this.player?.last ?? 0; },
};

async function open(place, pair) {
  shared.player?.toggle(false);
  const address = new URLSearchParams(pair.key ? { pair: pair.key } : { a: pair.a.name, b: pair.b.name });
  history.replaceState(null, "", `?${address}`);
  place.setAttribute("aria-busy", "true");
  const both = await Promise.all([pair.a, pair.b].map((row) => get("/api/series", { episode: row.name }).catch((error) => ({ error: error.message }))));
  const readable = both.filter((series) => !series.error);
  if (!readable.length) {
    replace(place, both.map((series) => h("div", { class: "error", role: "alert" }, series.error)));
    return;
  }
  const longest = readable.reduce((a, b) => (b.steps > a.steps ? b : a));
  const clock = new Player(longest.seconds, longest.step_s);
  shared.player = clock;
  const columns = both.map((series, i) => column([pair.a, pair.b][i], series, clock, both[1 - i]));
  replace(place, controls(clock), h("div", { class: "two" }, columns));
  place.removeAttribute("aria-busy");
}

function column(row, series, clock, beside) {
  const head = [h("h2", {}, h("a", { href: link(row.name) }, row.id)),
    h("p", {}, outcome(row.outcome, row.cause), h("span", { class: "note" }, ` · ${row.kind}, ${policy(row.policy) || "no policy"}, ${row.seconds.toFixed(1)} s`))];
  if (series.error) return h("section", {}, head, h("div", { class: "error" }, series.error));
  const own = new Player(series.seconds, series.step_s);
  clock.addEventListener("step", () => own.seek(own.at(clock.seconds[clock.step])));
  const tags = Object.keys(series.labels);
  const timeline = new Timeline(series, own, tags[tags.length - 1], beside.error ? null : beside);
  // On the axis of the longer one, so that equal times lie at equal places.
  own.total = clock.total;
  timeline.view = [0, clock.total];
  timeline.zoom(1);
  timeline.annotated(series.annotations.current);
  own.addEventListener("step", () => {
    if (Math.abs(clock.seconds[clock.step] - own.seconds[own.step]) > 2 * series.step_s && own.step < own.last) clock.seek(clock.at(own.seconds[own.step]));
  });
  return h("section", { ariaLabel: row.id }, head, new Cameras(row.name, series, own).element, timeline.element);
}

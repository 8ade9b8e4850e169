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
  const groups = [...pairsOf(whole), ...startsOf(whole)];
  const asked = query.get("pair");
  let group = groups.find(({ pair }) => asked && pair === asked);
  const missing = asked && !group ? h("p", { class: "warning", role: "status" }, `Nothing to compare in pair ${asked}: there is no correction of it.`) : null;
  group ||= groups[0];
  const [a, b] = ["a", "b"].map((side) => whole.find((row) => row.name === query.get(side)));
  if (a && b) {
    group = groups.find(({ members }) => members.includes(a) && members.includes(b));
    if (!group) groups.unshift(group = { text: `${a.id} and ${b.id}`, members: [a, b], a, b });
  }
  if (!groups.length) {
    replace(main, h("h1", {}, "Compare"), missing, h("p", {}, "Nothing to compare: no two episodes share a pair id, or a start (seed) with different policies."));
    return;
  }
  const place = h("div", { class: "compare" });
  const sides = h("div", { class: "sides" });
  // Of a group any two: its first and second choice unless others are named.
  const enter = (chosen, left = chosen.a, right = chosen.b) => {
    if (chosen !== group) missing?.remove();
    const side = (text, row, run) => field(text, choice(chosen.members.map((m) => [m.name, called(m)]), row.name,
      (name) => run(chosen.members.find((m) => m.name === name))));
    replace(sides, chosen.members.length < 3 ? null : [
      side("Left", left, (row) => { left = row; open(place, chosen, left, right); }),
      side("Right", right, (row) => { right = row; open(place, chosen, left, right); })]);
    return open(place, chosen, left, right);
  };
  const select = choice(groups.map(({ text }, i) => [String(i), text]), String(groups.indexOf(group)), (i) => enter(groups[Number(i)]));
  replace(main, h("h1", {}, "Compare"), missing, field("Which two", select), sides, place);
  const other = (by) => {
    select.value = String(Math.max(0, Math.min(groups.length - 1, Number(select.value) + by)));
    enter(groups[Number(select.value)]);
  };
  bind([["j", "next two", () => other(1), { held: true }], ["k", "the two before", () => other(-1), { held: true }]]);
  playerKeys(shared, bind);
  await (a && b ? enter(group, a, b) : enter(group));
}

const called = (row) => `${policy(row.policy) || "no policy"}: ${row.id}, ${row.kind}, ${row.outcome || "not judged"}`;

// A failed episode first, then what was recorded to correct it.
function pairsOf(rows) {
  const groups = gather(rows.filter((row) => row.pair), (row) => row.pair);
  return [...groups].flatMap(([pair, members]) => {
    const b = members.find((row) => row.kind === "correction");
    const a = members.find((row) => row !== b);
    return a && b ? [{ pair, text: `${pair}: ${a.id} (${a.outcome || "?"}) and its correction`, members, a, b }] : [];
  });
}

function gather(rows, by) {
  const groups = new Map();
  for (const row of rows) groups.set(by(row), [...(groups.get(by(row)) || []), row]);
  return groups;
}

// Several policies from one start, in the order of their recording.
function startsOf(rows) {
  const starts = rows.filter((row) => row.seed >= 0 && ["deployment", "evaluation"].includes(row.kind));
  const groups = gather(starts, (row) => `${row.task} ${row.stage} ${row.seed}`);
  return [...groups].flatMap(([key, members]) => {
    const a = members[0];
    const b = members.find((row) => row.policy !== a.policy);
    const names = [...new Set(members.map((row) => policy(row.policy) || "no policy"))];
    return b ? [{ text: `start ${key.trim().replace(/ +/g, " ")}: ${names.join(", ")}`, members, a, b }] : [];
  });
}

let turns = 0;

// One clock for both: the longer one's. The keys hold on to it over changes of the pair.
const shared = {
  toggle: (...args) => shared.player?.toggle(...args), seek: (step) => shared.player?.seek(step), by: (t) => shared.player?.by(t),
  faster: (by) => shared.player?.faster(by),
  get step() { return this.player?.step ?? 0; }, get last() { return this.player?.last ?? 0; },
};

async function open(place, group, a, b) {
  const turn = ++turns;
  shared.player?.toggle(false);
  const usual = group.pair && a === group.a && b === group.b;
  const address = new URLSearchParams(usual ? { pair: group.pair } : { a: a.name, b: b.name });
  history.replaceState(null, "", `?${address}`);
  place.setAttribute("aria-busy", "true");
  const both = await Promise.all([a, b].map((row) => get("/api/series", { episode: row.name }).catch((error) => ({ error: error.message }))));
  if (turn !== turns) return; // meanwhile two others were asked for
  place.removeAttribute("aria-busy");
  const readable = both.filter((series) => !series.error);
  if (!readable.length) {
    replace(place, both.map((series) => h("div", { class: "error", role: "alert" }, series.error)));
    return;
  }
  const longest = readable.reduce((a, b) => (b.steps > a.steps ? b : a));
  const clock = new Player(longest.seconds, longest.step_s);
  shared.player = clock;
  const columns = both.map((series, i) => column([a, b][i], series, clock, both[1 - i]));
  replace(place, controls(clock), h("div", { class: "two" }, columns));
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

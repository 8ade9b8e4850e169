// One episode: cameras, time axis, judgement.

import { address, get } from "./api.js";
import { Annotator } from "./annotate.js";
import { choice, field, h, replace } from "./dom.js";
import { bind } from "./keys.js";
import { Cameras, Player, controls, playerKeys } from "./player.js";
import { Timeline } from "./timeline.js";
import { VideoMaker } from "./video.js";
import { day, link, policy } from "./words.js";

export async function show(main, query) {
  const name = query.get("id") || "";
  const about = await get("/api/episode", { episode: name });
  document.title = `${about.id} · dexpie`;
  const neighbours = around(name);
  let series = null;
  let broken = about.error;
  try {
    series = await get("/api/series", { episode: name });
  } catch (error) {
    if (error.status !== 422) throw error;
    broken = error.message;
  }
  const player = series ? new Player(series.seconds, series.step_s) : null;
  const view = h("div", { class: "view" });
  let timeline = null;
  const annotator = new Annotator(name, about, series, player, {
    drawn: (current) => timeline?.annotated(current),
    reload: async () => (series ? (await get("/api/series", { episode: name })).annotations
      : (await get("/api/episode", { episode: name })).annotations),
  });
  if (series) {
    const tags = Object.keys(series.labels);
    timeline = new Timeline(series, player, tags[tags.length - 1]);
    timeline.annotated(annotator.state.current);
    const cameras = new Cameras(name, series, player);
    const labels = labelChoice(series, name, tags, timeline, annotator);
    replace(view, cameras.element, controls(player), labels.element,
      timeline.element, events(series, player));
    playerKeys(player, bind);
    bind([
      ["z", "closer", () => timeline.zoom(0.5)],
      ["Z", "farther", () => timeline.zoom(2)],
      ["e", "next event or change of driver", () => next(series, player, 1)],
      ["E", "the one before", () => next(series, player, -1)],
      ...(labels.video ? [["v", "save as video", () => labels.video.start()]] : []),
    ]);
    player.seek(Number(query.get("step")) || 0);
    player.addEventListener("step", () => {
      clearTimeout(player.noted);
      player.noted = setTimeout(() => history.replaceState(null, "", link(name, player.step)), 400);
    });
  }
  if (annotator.state) annotator.keys(bind);
  bind([
    ["j", "next episode of the table", () => { if (neighbours.next) location.href = link(neighbours.next); }, { held: true }],
    ["k", "episode before", () => { if (neighbours.before) location.href = link(neighbours.before); }, { held: true }],
    ["p", "compare with its pair", () => { if (about.info?.pair_id) location.href = compare(about); }],
  ]);
  const remarks = [...about.quality.map(([word, story]) => `${word}: ${story}`), ...(series?.problems || [])];
  replace(main, heading(about, neighbours),
    broken ? h("div", { class: "error", role: "alert" }, h("strong", {}, "This recording cannot be shown. "), broken) : null,
    remarks.length ? h("details", { class: "warning", open: remarks.length < 4 },
      h("summary", {}, remarks.length === 1 ? "1 remark on the recording" : `${remarks.length} remarks on the recording`),
      h("ul", {}, remarks.map((text) => h("li", {}, text)))) : null,
    h("div", { class: "columns" }, view, h("div", { class: "side" }, annotator.element, facts(about, Object.keys(series?.labels || {})))));
}

function around(name) {
  let list = [];
  try {
    list = JSON.parse(sessionStorage.getItem("list") || "[]");
  } catch {
    list = []; // whatever is there is not ours
  }
  const at = list.indexOf(name);
  return { at, count: list.length, before: at > 0 ? list[at - 1] : null, next: at >= 0 ? list[at + 1] : null };
}

const compare = (about) => `/compare?${new URLSearchParams({ pair: about.info.pair_id })}`;

function heading(about, neighbours) {
  const step = (name, text, label) => (name ? h("a", { class: "button", href: link(name), ariaLabel: label }, text) : null);
  return h("div", { class: "heading" }, h("h1", {}, about.id),
    h("p", { class: "note" }, [about.info?.kind, about.info?.task, about.info?.stage, about.info?.policy_id && `policy ${policy(about.info.policy_id)}`,
      about.info && day(about.info.created), about.status !== "finished" && about.status].filter(Boolean).join(" · ")),
    h("div", { class: "buttons" }, step(neighbours.before, "‹ before", "episode before"), step(neighbours.next, "next ›", "next episode"),
      about.info?.pair_id ? h("a", { class: "button", href: compare(about) }, "Compare with its pair") : null,
      neighbours.at >= 0 ? h("span", { class: "note" }, `${neighbours.at + 1} of ${neighbours.count}`) : null));
}

function labelChoice(series, name, tags, timeline, annotator) {
  if (!tags.length) return { element: h("p", { class: "note" }, "No labels yet: `dexpie label` adds value, advantage and optimality.") };
  let shown = tags[tags.length - 1];
  const video = new VideoMaker(name, () => shown);
  const about = (tag) => {
    const { critic, held_out: heldOut } = series.labels[tag];
    return `critic ${critic}${heldOut === true ? ", which has not seen this episode" : heldOut === false ? ", which learned from this episode" : ""}`;
  };
  const note = h("span", { class: "note" }, about(shown));
  const element = h("div", { class: "labels" }, field("Labels", choice(tags.map((tag) => [tag, tag]), shown, (tag) => {
    shown = tag;
    timeline.label(tag);
    timeline.annotated(annotator.state.current);
    note.textContent = about(tag);
  })), note, video.element);
  return { element, video };
}

// Steps at which something happens: events, and where another one drives.
function moments(series, player) {
  const changes = series.source.map((value, i) => (i && value !== series.source[i - 1] ? i : -1)).filter((i) => i > 0);
  const told = series.events.map(([time]) => player.at(Math.max(0, time)));
  return [...new Set([...changes, ...told])].sort((a, b) => a - b);
}

function next(series, player, direction) {
  const all = moments(series, player);
  const found = direction > 0 ? all.find((i) => i > player.step) : all.reverse().find((i) => i < player.step);
  player.toggle(false);
  if (found !== undefined) player.seek(found);
}

function events(series, player) {
  if (!series.events.length) return null;
  const words = (text) => {
    try {
      const value = JSON.parse(text);
      const rest = Object.entries(value).filter(([key]) => key !== "time_ns").map(([, v]) => (typeof v === "string" ? v : JSON.stringify(v)));
      return rest.join(", ") || text;
    } catch {
      return text; // an event need not be JSON
    }
  };
  return h("details", { class: "events" }, h("summary", {}, `${series.events.length} events`), h("ul", {}, series.events.map(([time, text]) =>
    h("li", {}, h("button", { type: "button", class: "quiet", onclick: () => player.seek(player.at(Math.max(0, time))) }, `${time.toFixed(2)} s`), ` ${words(text)}`))));
}

function facts(about, tags) {
  const streams = Object.entries(about.streams);
  const pairs = about.info ? Object.entries({ seed: about.info.seed < 0 ? "" : about.info.seed, pair: about.info.pair_id, policy: about.info.policy_id,
    simulated: about.info.simulated ? "yes" : "no", code: Object.values(about.info.software).join(" "), directory: about.path,
    note: Object.keys(about.info.note).length ? JSON.stringify(about.info.note) : "" }) : [["directory", about.path]];
  return h("details", { class: "facts" }, h("summary", {}, "About the recording"),
    h("p", { class: "note" }, h("a", { href: address("/bag", { episode: about.name }), download: "" }, "Download the bag"), ", ",
      tags.map((tag) => [h("a", { href: address("/labels", { episode: about.name, tag }), download: "" }, `labels ${tag}`), ", "]).flat(), "for Foxglove or Rerun; a ",
      h("a", { href: "/foxglove_layout.json", download: "" }, "Foxglove layout"), " for it."),
    h("dl", {}, pairs.filter(([, value]) => value !== "").flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, String(value))])),
    streams.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Stream", "Hz", "Lost", "Gap, ms"].map((t, i) => h("th", { scope: "col", class: i ? "number" : "" }, t)))),
      h("tbody", {}, streams.map(([name, v]) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, Number(v.rate_hz || 0).toFixed(1)),
        h("td", { class: "number" }, v.dropped ?? 0), h("td", { class: "number" }, Number(v.max_gap_ms ?? 0).toFixed(0))))))) : null);
}

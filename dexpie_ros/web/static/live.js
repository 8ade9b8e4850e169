// The running graph: what the cameras see, who drives, whether the streams are well.

import { address, get, post } from "./api.js";
import { choice, field, h, replace, say } from "./dom.js";
import { bind } from "./keys.js";

const EVERY_MS = 200;
const CAUSES = ["tipped", "dropped", "missed", "misaligned", "stalled", "collision", "timeout", "other"];

export async function show(main) {
  const badge = h("div", { class: "mode", role: "status", ariaLabel: "Mode" });
  const note = h("div", { class: "live-note" });
  const panel = h("pre", { class: "panel", tabIndex: 0, ariaLabel: "The operator's panel" });
  const streams = h("tbody");
  const complaints = h("ul", { class: "complaints" });
  const cameras = Object.fromEntries(["front", "wrist"].map((camera) => [camera, h("img", { alt: `camera ${camera}`, width: 320, height: 240 })]));
  const command = async (body, text) => {
    try {
      const answer = await post("/api/live/command", {}, body);
      say(answer.message === "done" ? text : answer.message);
    } catch (error) {
      say(error.message, true);
    }
  };
  const cause = h("input", { autocomplete: "off" });
  cause.setAttribute("list", "live-causes");
  const kind = choice([["deployment", "deployment"], ["demonstration", "demonstration"], ["correction", "correction"], ["evaluation", "evaluation"]], "deployment", () => {});
  const act = {
    take: () => command({ action: "take" }, "the operator drives"),
    force: () => command({ action: "take", force: true }, "the operator drives"),
    give: () => command({ action: "give" }, "given back"),
    success: () => command({ action: "end", outcome: "success" }, "success"),
    failure: () => command({ action: "end", outcome: "failure", cause: cause.value }, "failure"),
    aborted: () => command({ action: "end", outcome: "aborted", cause: cause.value }, "aborted"),
    start: () => command({ action: "start", kind: kind.value }, "started"),
  };
  const button = (name, text, key, style = "") => h("button", { type: "button", class: style, onclick: act[name] }, `${text} `, key ? h("kbd", {}, key) : null);
  bind([
    ["t", "take over", act.take],
    ["b", "give back", act.give],
    ["s", "end: success", act.success],
    ["f", "end: failure", act.failure],
    ["c", "cause of a failure", () => cause.focus()],
    ["a", "end: aborted", act.aborted],
  ]);
  const body = h("div", { class: "live" },
    h("div", { class: "cameras" }, Object.entries(cameras).map(([name, image]) => h("figure", {}, image, h("figcaption", {}, name)))),
    h("div", { class: "live-side" }, badge, panel, complaints,
      h("div", { class: "buttons" }, button("take", "Take over", "t", "human"), button("give", "Give back", "b"), button("force", "Take over although out of alignment", "")),
      h("div", { class: "buttons" }, button("success", "✓ Success", "s"), button("failure", "✗ Failure", "f"), button("aborted", "– Aborted", "a")),
      field("Cause", cause, "c"), h("datalist", { id: "live-causes" }, CAUSES.map((value) => h("option", { value }))),
      h("div", { class: "buttons" }, field("New episode", kind), button("start", "Start", ""))),
    h("div", { class: "scroll" }, h("table", {}, h("caption", {}, "Streams"), h("thead", {}, h("tr", {}, ["Stream", "Health", "Hz", "on the robot", "Age"].map((t) => h("th", { scope: "col" }, t)))), streams)));
  replace(main, h("h1", {}, "Live"), note, body);
  const seen = {};
  const look = async () => {
    let state;
    try {
      state = await get("/api/live/state");
    } catch (error) {
      state = { error: error.message };
    }
    const problem = state.error || (state.ros === false && state.reason)
      || (!state.heard && "No graph is heard. Start one (`dexpie launch deploy sim:=true`) in the same ROS domain; it appears here by itself.");
    body.hidden = Boolean(problem);
    if (note.textContent !== (problem || "")) replace(note, problem ? h("p", { class: "warning" }, problem) : null);
    if (!problem) draw(state);
    return state.ros !== false;
  };
  const draw = (state) => {
    const words = state.mode ? `${state.mode}${state.reason ? `: ${state.reason}` : ""}` : "the arbiter is silent";
    badge.className = `mode mode-${(state.mode || "none").replace(" ", "-")}`;
    if (badge.textContent !== words) badge.textContent = words;
    panel.textContent = state.panel.join("\n");
    replace(complaints, state.complaints.map((c) => h("li", { class: c.level > 1 ? "bad" : "warn" }, `${c.name}: ${c.message}`)));
    replace(streams, state.streams.map((row) => h("tr", {}, h("td", {}, row.name), h("td", { class: ["fresh"].includes(row.health) ? "good" : row.health === "missing" ? "soft" : "bad" }, row.health),
      h("td", { class: "number" }, row.rate.toFixed(1)), h("td", { class: "number" }, row.nominal || "–"), h("td", { class: "number" }, row.age === null ? "–" : `${row.age.toFixed(2)} s`))));
    for (const [name, image] of Object.entries(cameras)) {
      const number = state.pictures[name];
      if (number && number !== seen[name] && image.dataset.busy !== "yes") {
        seen[name] = number;
        image.dataset.busy = "yes";
        image.onload = image.onerror = () => { image.dataset.busy = ""; };
        image.src = address("/api/live/picture", { camera: name, number });
      }
    }
  };
  const loop = async () => {
    // A hidden tab asks for nothing; the server then leaves the graph.
    const going = document.hidden ? true : await look();
    if (going) setTimeout(loop, EVERY_MS);
  };
  await look();
  setTimeout(loop, EVERY_MS);
}

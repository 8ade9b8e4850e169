// The running graph: what the cameras see, who drives, whether the streams are well.

import { address, get, post } from "./api.js";
import { h, replace, say } from "./dom.js";
import { bind, leaving } from "./keys.js";
import { StartOverlay } from "./overlay.js";

const EVERY_MS = 200;
const AGAIN_MS = 5000; // a key pressed again within so long is meant

// Whether the robot may move, or an episode is there: then a stop must stay within reach.
const goesOn = (state) => Boolean((state.mode && !["hold", "fault"].includes(state.mode))
  || (state.phase && !["idle", "unknown"].includes(state.phase)));

// The newest picture of a camera. It stays until the next one is there, and says when it is old.
class LiveCamera {
  constructor(name) {
    this.name = name;
    this.canvas = h("canvas", { width: 320, height: 240, role: "img", ariaLabel: `camera ${name}` });
    this.caption = h("figcaption", {}, name);
    this.element = h("figure", {}, this.canvas, this.caption);
  }

  async update(state) {
    const stream = state.streams.find((row) => row.name === `/camera/${this.name}/color/image_raw/compressed`);
    const old = stream && stream.health !== "fresh" ? `, ${stream.age === null ? "no picture yet" : `${stream.age.toFixed(1)} s old`}` : "";
    this.caption.textContent = this.name + old;
    this.caption.className = old ? "old" : "";
    const number = state.pictures[this.name];
    if (!number || number === this.seen || this.busy) return;
    this.busy = true;
    const image = new Image();
    image.src = address("/api/live/picture", { camera: this.name, number });
    try {
      await image.decode();
      Object.assign(this.canvas, { width: image.naturalWidth, height: image.naturalHeight });
      this.canvas.getContext("2d").drawImage(image, 0, 0);
      this.canvas.dataset.number = number;
      this.seen = number;
    } catch {
      // A picture that came broken; the next one is asked for at the next look.
    }
    this.busy = false;
  }
}

export async function show(main) {
  const badge = h("div", { class: "mode", role: "status", ariaLabel: "Mode" });
  const note = h("div", { class: "live-note" });
  const panel = h("pre", { class: "panel", tabIndex: 0, ariaLabel: "The operator's panel" });
  const streams = h("tbody");
  const complaints = h("ul", { class: "complaints" });
  const cameras = ["front", "wrist"].map((camera) => new LiveCamera(camera));
  const overlay = new StartOverlay(cameras[0].element);
  const command = async (body, text) => {
    try {
      const answer = await post("/api/live/command", {}, body);
      say(answer.message === "done" ? text : answer.message);
    } catch (error) {
      say(error.message, true);
    }
  };
  const { bindings, causes } = await get("/api/live/keys");
  const ask = h("div", { class: "buttons", role: "group", ariaLabel: "Why did it fail?" });
  const fail = (why) => { ask.replaceChildren(); command({ action: "end", outcome: "failure", cause: why }, `failure: ${why}`); };
  const special = {
    success: () => command({ action: "end", outcome: "success" }, "success"),
    aborted: () => command({ action: "end", outcome: "aborted" }, "aborted"),
    failure: () => {
      replace(ask, "Why?", causes.map((why, i) => h("button", { type: "button", onclick: () => fail(why) }, `${why} `, h("kbd", {}, `${i + 1}`))),
        h("button", { type: "button", class: "quiet", onclick: () => ask.replaceChildren() }, "not ended"));
      ask.querySelector("button").focus();
    },
  };
  const act = {};
  for (const { action } of bindings) act[action] = special[action] || (() => command({ action }, action.replaceAll("_", " ")));
  const named = (key) => ({ " ": "Space", "\r": "Enter", "\n": "Enter", "\u001b": "Escape" }[key] || key);
  const keyOf = Object.fromEntries(bindings.map((b) => [b.action, named(b.keys[0])]));
  const help = Object.fromEntries(bindings.map((b) => [b.action, b.help]));
  // The stop works in whatever state the page and the keyboard are.
  const stop = (b) => b.action === "emergency_stop";
  bind(bindings.map((b) => [[...new Set(b.keys.map(named))], b.help, act[b.action], { always: stop(b) }]));
  bind([["o", "the picture of the start over the live one, or not", () => overlay.toggle()]]);
  bind(causes.map((why, i) => [String(i + 1), "", () => { if (ask.childElementCount) fail(why); }]));
  const button = (action, text, style = "") => h("button", { type: "button", class: style, title: help[action] || "", onclick: act[action] }, `${text} `,
    keyOf[action] ? h("kbd", {}, keyOf[action]) : null);
  const plain = (text, request) => h("button", { type: "button", onclick: () => command(request, text) }, text);
  const group = (title, ...buttons) => h("div", { role: "group", ariaLabel: title }, h("h2", { class: "small" }, title), h("div", { class: "buttons" }, buttons));
  // The mode and the way to stop stay in sight, however far one has scrolled.
  const top = h("div", { class: "live-top" }, badge, h("div", { class: "buttons" }, button("emergency_stop", "Stop", "stop"),
    plain("Take over", { action: "take" }), plain("Give back", { action: "give" })));
  const heads = ["Stream", "Health", "Hz", "Hz on the robot", "Age"].map((text, i) => h("th", { scope: "col", class: i > 1 ? "number" : "" }, text));
  const body = h("div", { class: "live" }, top,
    h("div", { class: "live-pictures" }, h("div", { class: "cameras" }, cameras.map((camera) => camera.element)), overlay.element),
    h("div", { class: "live-side" }, panel, complaints,
      group("Episode", button("start", "Start episode"), button("success", "✓ Success"), button("failure", "✗ Failure"), button("aborted", "– Aborted"),
        button("re_record", "Record again"), button("next_stage", "Next stage"), button("mark_stage", "Stage begins now"), button("exclude", "Not for the critic")),
      ask,
      group("Who drives", button("toggle", "Toggle"), button("align", "Align, then take over"), button("force", "Take over out of alignment"),
        button("hold", "Hold"), button("clear_fault", "Clear fault")),
      group("Operator's hand", button("calibrate", "Calibrate"), button("clutch", "Clutch"))),
    h("div", { class: "scroll", tabIndex: 0, role: "region", ariaLabel: "Streams" },
      h("table", {}, h("caption", {}, "Streams"), h("thead", {}, h("tr", {}, heads)), streams)));
  // Who clicks a button and then presses space means the takeover, not that button again.
  body.addEventListener("click", (event) => {
    const clicked = event.detail > 0 && event.target.closest("button, .check input");
    if (clicked && clicked === document.activeElement) clicked.blur();
  });
  replace(main, h("h1", {}, "Live"), note, body);
  let going = false, asked = -Infinity;
  leaving.objection = () => {
    if (!going || performance.now() - asked < AGAIN_MS) return "";
    asked = performance.now();
    return "An episode runs or the robot is driven, and its Stop is on this page: g again leaves it";
  };
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
    going = !problem && goesOn(state);
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
    for (const camera of cameras) camera.update(state);
    overlay.update(state);
  };
  const loop = async () => {
    // A hidden tab asks for nothing; the server then leaves the graph.
    const more = document.hidden ? true : await look();
    if (more) setTimeout(loop, EVERY_MS);
  };
  await look();
  setTimeout(loop, EVERY_MS);
}

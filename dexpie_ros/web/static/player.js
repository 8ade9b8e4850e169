// Time of an episode: which control step is shown, and its pictures from both cameras at once.

import { address } from "./api.js";
import { h } from "./dom.js";
import { clock } from "./words.js";

export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8];

// Counts steps; tells listeners. `seconds`: time of every step.
export class Player extends EventTarget {
  constructor(seconds, stepSeconds) {
    super();
    this.seconds = seconds;
    this.total = seconds[seconds.length - 1] + stepSeconds;
    this.step = 0;
    this.speed = 1;
    this.playing = false;
  }

  get last() { return this.seconds.length - 1; }

  seek(step) {
    const wanted = Math.max(0, Math.min(this.last, Math.round(step)));
    if (wanted === this.step) return;
    this.step = wanted;
    this.origin = null;
    this.dispatchEvent(new Event("step"));
  }

  // The step in force at a time.
  at(time) {
    let low = 0;
    let high = this.last;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.seconds[middle] <= time) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  by(seconds) { this.seek(this.at(this.seconds[this.step] + seconds)); }

  faster(by) {
    const at = SPEEDS.indexOf(this.speed) + by;
    this.speed = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))];
    this.origin = null;
    this.dispatchEvent(new Event("state"));
  }

  toggle(on = !this.playing) {
    if (on && this.step === this.last) this.seek(0);
    this.playing = on;
    this.origin = null;
    this.dispatchEvent(new Event("state"));
    if (on) requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    if (!this.playing) return;
    this.origin ??= { wall: now, time: this.seconds[this.step] };
    const step = this.at(this.origin.time + (this.speed * (now - this.origin.wall)) / 1000);
    if (step !== this.step) {
      this.step = step;
      this.dispatchEvent(new Event("step"));
    }
    if (step === this.last) this.toggle(false);
    else requestAnimationFrame((next) => this.tick(next));
  }
}

const KEPT = 160;
const AHEAD = 20;

// The cameras' pictures of a step, drawn together once all of them are there.
export class Cameras {
  constructor(name, series, player) {
    this.name = name;
    this.series = series;
    this.player = player;
    this.loaded = new Map();
    this.names = Object.keys(series.cameras);
    this.canvases = this.names.map((camera) => h("canvas", {
      width: 320, height: 240, role: "img", ariaLabel: `camera ${camera}` }));
    this.element = h("div", { class: "cameras" }, this.names.map((camera, i) =>
      h("figure", {}, this.canvases[i], h("figcaption", {}, camera))));
    if (!this.names.length) this.element.append(h("p", { class: "note" }, "No pictures were recorded."));
    player.addEventListener("step", () => this.draw());
    this.draw();
  }

  load(camera, step) {
    const number = this.series.cameras[camera].rows[step];
    const url = address("/api/picture", { episode: this.name, camera, number, state: this.series.state });
    let found = this.loaded.get(url);
    if (!found) {
      const image = new Image();
      image.src = url;
      found = image.decode().then(() => image, () => null);
    }
    this.loaded.delete(url);
    this.loaded.set(url, found);
    if (this.loaded.size > KEPT) this.loaded.delete(this.loaded.keys().next().value);
    return found;
  }

  async draw() {
    const step = this.player.step;
    const asked = performance.now();
    const images = await Promise.all(this.names.map((camera) => this.load(camera, step)));
    // While playing a picture that comes late is still shown, unless a newer one already is.
    if (step !== this.player.step && !(this.player.playing && step > (this.drawn ?? -1))) return;
    images.forEach((image, i) => this.paint(this.canvases[i], image));
    this.drawn = step;
    this.element.dataset.step = step;
    this.element.dataset.waited = Math.round(performance.now() - asked);
    // What comes next is fetched ahead, but a scrub in progress must not queue behind it.
    clearTimeout(this.later);
    if (this.player.playing) this.fetch(step, AHEAD);
    else this.later = setTimeout(() => this.fetch(step, 4), 120);
  }

  fetch(step, ahead) {
    for (let k = 1; k <= ahead && step + k <= this.player.last; k++) this.names.forEach((camera) => this.load(camera, step + k));
  }

  paint(canvas, image) {
    const context = canvas.getContext("2d");
    if (!image) {
      context.clearRect(0, 0, canvas.width, canvas.height);
      canvas.setAttribute("aria-label", "this picture cannot be shown");
      return;
    }
    if (canvas.width !== image.naturalWidth || canvas.height !== image.naturalHeight) {
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
    }
    context.drawImage(image, 0, 0);
  }
}

// Play, scrub, step and speed.
export function controls(player) {
  const play = h("button", { type: "button", class: "play", onclick: () => player.toggle() });
  const scrub = h("input", {
    type: "range", min: 0, max: player.last, step: 1, value: 0, ariaLabel: "Control step", class: "scrub",
    oninput: () => {
      const wanted = Number(scrub.value); // pausing puts the slider back to where the player is
      player.toggle(false);
      player.seek(wanted);
    } });
  const time = h("output", { class: "time" });
  const speed = h("select", { ariaLabel: "Speed", onchange: () => { player.speed = Number(speed.value); player.origin = null; } },
    SPEEDS.map((value) => h("option", { value, selected: value === 1 }, `${value} ×`)));
  const show = () => {
    play.replaceChildren(player.playing ? "❚❚ Pause" : "▶ Play");
    scrub.value = player.step;
    const text = `${clock(player.seconds[player.step])} of ${clock(player.total)}, step ${player.step}`;
    scrub.setAttribute("aria-valuetext", text);
    time.textContent = text;
    speed.value = player.speed;
  };
  player.addEventListener("step", show);
  player.addEventListener("state", show);
  show();
  const step = (by, label, sign) => h("button", { type: "button", ariaLabel: label, onclick: () => { player.toggle(false); player.seek(player.step + by); } }, sign);
  return h("div", { class: "controls" }, play, step(-1, "one step back", "‹"), step(1, "one step on", "›"), scrub, time, speed);
}

export function playerKeys(player, bind) {
  const pause = (run) => () => { player.toggle(false); run(); };
  const held = { held: true };
  bind([
    ["Space", "play, pause", () => player.toggle()],
    ["ArrowLeft", "one step back", pause(() => player.seek(player.step - 1)), held],
    ["ArrowRight", "one step on", pause(() => player.seek(player.step + 1)), held],
    ["Shift+ArrowLeft", "one second back", pause(() => player.by(-1)), held],
    ["Shift+ArrowRight", "one second on", pause(() => player.by(1)), held],
    ["Home", "to the beginning", pause(() => player.seek(0))],
    ["End", "to the end", pause(() => player.seek(player.last))],
    ["-", "slower", () => player.faster(-1), held],
    [["+", "="], "faster", () => player.faster(1), held],
  ]);
}

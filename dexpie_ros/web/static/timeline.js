// One time axis under the pictures: bands and curves, one lane each. SVG in units of seconds, so
// that the browser stretches it; colours come from the style sheet.

import { h, s } from "./dom.js";

const HEIGHT = 100;
// Who drives is told by height too, for those who cannot tell the colours.
const TALL = { human: 46, blend: 34, policy: 22, hold: 10 };

export class Timeline {
  // other: a series whose values have room on the same scales, so that two can be compared.
  constructor(series, player, tag, other = null) {
    this.series = series;
    this.other = other;
    this.player = player;
    this.view = [0, player.total];
    this.cursor = h("div", { class: "cursor" });
    this.rows = h("div", { class: "lanes" });
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.element = h("section", { class: "timeline", ariaLabel: "Curves over time" }, this.rows, this.axis);
    this.label(tag);
    player.addEventListener("step", () => this.move());
    for (const type of ["pointerdown", "pointermove"]) this.rows.addEventListener(type, (event) => this.point(event));
    new ResizeObserver(() => this.move()).observe(this.element);
  }

  label(tag) {
    this.lanes = build(this.series, this.series.labels[tag], this.other, this.other?.labels[tag]);
    this.rows.replaceChildren(...this.lanes.map((lane) => lane.element), this.cursor);
    this.zoom(1);
  }

  // The human segments or the stages were edited.
  annotated(annotation) {
    const bands = this.lanes.find((lane) => lane.name === "Driver");
    bands.marks.replaceChildren(...marks(this.series, annotation));
  }

  zoom(factor) {
    const total = this.player.total;
    const wide = Math.max(1, Math.min(total, (this.view[1] - this.view[0]) * factor));
    const now = this.player.seconds[this.player.step];
    const start = Math.max(0, Math.min(total - wide, now - wide / 2));
    this.view = wide >= total ? [0, total] : [start, start + wide];
    for (const lane of this.lanes) lane.svg.setAttribute("viewBox", `${this.view[0]} 0 ${this.view[1] - this.view[0]} ${HEIGHT}`);
    this.ticks();
    this.move();
  }

  ticks() {
    const wide = this.view[1] - this.view[0];
    const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((t) => wide / t <= 9) || 1200;
    const times = [];
    for (let t = Math.ceil(this.view[0] / every) * every; t <= this.view[1]; t += every) times.push(t);
    this.axis.replaceChildren(...times.map((t) => {
      const tick = h("span", {}, `${Number(t.toFixed(1))} s`);
      tick.style.left = `${(100 * (t - this.view[0])) / wide}%`;
      return tick;
    }));
  }

  move() {
    const step = this.player.step;
    const time = this.player.seconds[step];
    const wide = this.view[1] - this.view[0];
    if (time < this.view[0] || time > this.view[1]) {
      this.zoom(1);
      return;
    }
    const first = this.lanes[0].svg;
    this.cursor.style.left = `${first.parentElement.offsetLeft + (first.parentElement.clientWidth * (time - this.view[0])) / wide}px`;
    for (const lane of this.lanes) lane.now.textContent = lane.read(step);
  }

  point(event) {
    if (event.type === "pointermove" && !(event.buttons & 1)) return;
    const plot = event.target.closest(".plot");
    if (!plot) return;
    if (event.type === "pointerdown" && event.button === 0) {
      plot.setPointerCapture(event.pointerId);
      event.preventDefault();
    }
    const box = plot.getBoundingClientRect();
    const time = this.view[0] + ((event.clientX - box.left) / box.width) * (this.view[1] - this.view[0]);
    this.player.toggle(false);
    this.player.seek(this.player.at(time));
  }
}

// limits: what stands at the upper and the lower edge of the plot.
function lane(name, unit, description, content, read, legend = [], limits = null) {
  const svg = s("svg", { preserveAspectRatio: "none", role: "img", "aria-label": description }, content);
  const now = h("span", { class: "now" });
  const keys = legend.map(([style, text]) => h("span", { class: "key" }, h("i", { class: style }), text));
  const element = h("div", { class: `lane lane-${name.split(" ")[0].toLowerCase()}` },
    h("div", { class: "lane-name" }, h("strong", {}, name), unit ? ` ${unit}` : "", now, h("span", { class: "legend" }, keys)),
    h("div", { class: "plot" }, svg),
    h("div", { class: "limits", "aria-hidden": "true" }, limits ? [h("span", {}, limits[1]), h("span", {}, limits[0])] : null));
  return { name, svg, now, read, element };
}

// Where values lie within a lane; `range` covers all of them.
function scale(columns, least = null, most = null) {
  let low = least ?? Infinity;
  let high = most ?? -Infinity;
  for (const column of columns) {
    for (const v of column) {
      if (v === null) continue;
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  if (!(high > low)) { low = (Number.isFinite(low) ? low : 0) - 0.5; high = low + 1; }
  const pad = 0.06 * (high - low);
  const y = (v) => HEIGHT * (1 - (v - low + pad) / (high - low + 2 * pad));
  const digits = Math.max(0, Math.min(3, 1 - Math.floor(Math.log10(high - low))));
  y.limits = [low, high].map((v) => v.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"));
  return y;
}

function curve(x, values, y, style) {
  let d = "";
  let drawn = false;
  for (let i = 0; i < values.length; i++) {
    if (values[i] === null) { drawn = false; continue; }
    d += `${drawn ? "L" : "M"}${x[i]} ${y(values[i]).toFixed(2)}`;
    drawn = true;
  }
  return s("path", { d, class: `curve ${style}` });
}

// Between two rows that have a value at every step.
function band(x, low, high, y) {
  const way = (row) => row.map((v, i) => `${x[i]} ${y(v).toFixed(2)}`);
  return s("path", { d: `M${way(high).join("L")}L${way(low).reverse().join("L")}Z`, class: "spread" });
}

function level(value, y, total, style) {
  return s("line", { x1: 0, x2: total, y1: y(value), y2: y(value), class: `level ${style}` });
}

export function runs(values) {
  const found = [];
  values.forEach((value, i) => {
    const last = found[found.length - 1];
    if (last && last.value === value) last.end = i + 1;
    else found.push({ value, start: i, end: i + 1 });
  });
  return found;
}

function marks(series, annotation) {
  const time = (step) => (step >= series.steps ? series.seconds[series.steps - 1] + series.step_s : series.seconds[step]);
  const band = (start, end, style) => s("rect", { x: time(start), width: Math.max(0, time(end) - time(start)), y: 62, height: 38, class: style });
  const human = annotation?.interventions
    ? annotation.interventions.map(([a, b]) => band(a, b, "mark-human")) : [];
  const stages = (annotation?.stages || []).map(([step]) => s("line", { x1: time(step), x2: time(step), y1: 0, y2: HEIGHT, class: "mark-stage" }));
  return [...human, ...stages];
}

const fixed = (value, digits, unit = "") => (value === null || value === undefined ? "–" : `${value.toFixed(digits)}${unit}`);

function build(series, labels, other, otherLabels) {
  // Rows of both, for a scale.
  const both = (rows) => [...rows(series), ...(other ? rows(other) : [])];
  const judged = (rows) => [...rows(labels), ...(otherLabels ? rows(otherLabels) : [])];
  const { seconds: x, steps } = series;
  const total = x[steps - 1] + series.step_s;
  const end = (i) => (i >= steps ? total : x[i]);
  const group = s("g", {});
  const bands = runs(series.source).map(({ value, start, end: stop }) =>
    s("rect", { x: x[start], width: end(stop) - x[start], y: 60 - TALL[series.sources[value]], height: TALL[series.sources[value]],
      class: `band source-${series.sources[value]}` }));
  const flagged = runs(series.flagged).filter((run) => run.value).map(({ start, end: stop }) =>
    s("rect", { x: x[start], width: end(stop) - x[start], y: 0, height: 12, class: "mark-flag" }));
  const events = series.events.map(([t, text]) => s("line", { x1: t, x2: t, y1: 0, y2: HEIGHT, class: "mark-event" }, s("title", {}, text)));
  const present = [...new Set(series.source)].sort();
  const said = present.map((value) => `${series.sources[value]} ${Math.round((100 * series.source.filter((v) => v === value).length) / steps)} %`).join(", ");
  const lanes = [lane("Driver", "", `who drove: ${said}`, [...bands, ...flagged, group, ...events], (i) =>
    `${series.sources[series.source[i]]}${series.modes[series.mode[i]] === series.sources[series.source[i]] ? "" : ` (mode ${series.modes[series.mode[i]]})`}${series.flagged[i] ? ", out of tolerance" : ""}${series.contact[i] ? ", contact" : ""}`,
  [...present.map((value) => [`source-${series.sources[value]}`, series.sources[value]]),
    ...(flagged.length ? [["mark-flag", "out of tolerance"]] : [])])];
  lanes[0].marks = group;
  if (labels) {
    const { value, value_low: least, value_high: most } = labels;
    const y = scale(judged((l) => [l.value, l.value_low || [], l.value_high || []]));
    lanes.push(lane("Value", "", `value from ${fixed(Math.min(...value), 2)} to ${fixed(Math.max(...value), 2)}${least ? "; band: 10 to 90 % of the critic's distribution" : ""}`,
      [least ? band(x, least, most, y) : null, curve(x, value, y, "one")],
      (i) => (least ? `${fixed(value[i], 3)} (${fixed(least[i], 2)} … ${fixed(most[i], 2)})` : fixed(value[i], 3)),
      least ? [["line one", "mean"], ["spread", "10 to 90 %"]] : [], y.limits));
    const ya = scale(judged((l) => [l.advantage, [0, l.q_low ?? 0, l.q_high ?? 0]]));
    const thresholds = ["q_low", "q_high"].filter((key) => key in labels).map((key) => level(labels[key], ya, total, "dashed"));
    lanes.push(lane("Advantage", "", "advantage; dashed: thresholds of bad and good", [level(0, ya, total, "zero"), ...thresholds,
      curve(x, labels.advantage, ya, "one")], (i) => fixed(labels.advantage[i], 3), [], ya.limits));
    const yo = scale([[0, 1]]);
    const word = (v) => (v > 2 / 3 ? "good" : v < 1 / 3 ? "bad" : "unclear");
    const grounds = runs(labels.optimality.map(word)).map(({ value, start, end: stop }) =>
      s("rect", { x: x[start], width: end(stop) - x[start], y: 0, height: HEIGHT, class: `judged-${value}` }));
    lanes.push(lane("Optimality", "", "optimality between 0 and 1", [...grounds, curve(x, labels.optimality, yo, "ink")], (i) =>
      `${fixed(labels.optimality[i], 2)} ${word(labels.optimality[i])}`, [["judged-good", "good"], ["judged-unclear", "unclear"], ["judged-bad", "bad"]], ["0", "1"]));
  }
  const axes = ["x", "y", "z"];
  const centre = axes.map((_, k) => {
    const there = both((of) => [of.position[k]]).flat().filter((v) => v !== null);
    return there.reduce((sum, v) => sum + v, 0) / Math.max(1, there.length);
  });
  const centred = (columns) => columns.map((column, k) => column.map((v) => (v === null ? null : 100 * (v - centre[k]))));
  const [wanted, measured] = [centred(series.command_position), centred(series.position)];
  const yp = scale(both((of) => [...centred(of.command_position), ...centred(of.position)]));
  lanes.push(lane("Position", "cm from mean", "commanded and measured position", [
    ...measured.map((column, k) => curve(x, column, yp, `faint axis-${k}`)),
    ...wanted.map((column, k) => curve(x, column, yp, `thin axis-${k}`))],
  (i) => axes.map((_, k) => fixed(series.position[k][i], 3)).join(" "),
  [...axes.map((axis, k) => [`line axis-${k}`, axis]), ["line ink", "thin: command"]], yp.limits));
  const yh = scale([[0, 1]]);
  lanes.push(lane("Hand", "opening", "commanded and measured finger openings", [
    ...series.hand.map((column, k) => curve(x, column, yh, `faint finger-${k}`)),
    ...series.command_hand.map((column, k) => curve(x, column, yh, `thin finger-${k}`))],
  (i) => series.hand.map((column) => fixed(column[i], 2)).join(" "), series.hand_names.map((name, k) => [`line finger-${k}`, name]), ["0", "1"]));
  const ye = scale(both((of) => [of.position_error_mm]), 0);
  lanes.push(lane("Tracking", "error, mm", "distance between command and measurement", [curve(x, series.position_error_mm, ye, "one")],
    (i) => `${fixed(series.position_error_mm[i], 1, " mm")} ${fixed(series.angle_error_deg[i], 1, "°")}`, [], ye.limits));
  const newest = (stamps, i) => {
    let found = -1;
    for (let k = 0; k < stamps.length && stamps[k] <= x[i] + 1e-6; k++) found = k;
    return found;
  };
  const { alignment, latency } = series;
  if (alignment.seconds?.length) {
    // Both as shares of their limits: whatever is above the dashed line is why it is not aligned.
    const wrist = ({ deg = [], limit }) => deg.map((v) => (v === null ? null : v / limit));
    const fingers = ({ off = [], off_limit: limit }) => off.map((v) => (v === null ? null : Math.abs(v) / limit));
    const y = scale([...both((of) => [wrist(of.alignment), fingers(of.alignment)]), [1]], 0);
    lanes.push(lane("Alignment", "share of limit", `angle between operator and robot, limit ${alignment.limit} degrees, and largest difference of a finger, limit ${alignment.off_limit}`, [
      level(1, y, total, "dashed"), curve(alignment.seconds, wrist(alignment), y, "one"), curve(alignment.seconds, fingers(alignment), y, "ink")], (i) => {
      const k = newest(alignment.seconds, i);
      if (k < 0) return "–";
      const off = alignment.off[k];
      const finger = off === null ? "fingers unknown"
        : `${series.hand_names[alignment.finger[k]]} ${Math.abs(off).toFixed(2)} ${off < 0 ? "more closed" : "more open"}`;
      return `${fixed(alignment.deg[k], 0, "°")}, ${finger}: ${alignment.aligned[k] ? "aligned" : "not aligned"}`;
    }, [["line one", `wrist, of ${alignment.limit}°`], ["line ink", `worst finger, of ${alignment.off_limit}`]], y.limits));
  }
  if (latency.seconds?.length) {
    const y = scale(both((of) => [of.latency.ms || []]), 0);
    lanes.push(lane("Latency", "of chunks, ms", "time from observation to chunk", latency.ms.map((ms, k) =>
      s("line", { x1: latency.seconds[k], x2: latency.seconds[k], y1: y(0), y2: y(ms), class: "stem" })), (i) => {
      const k = newest(latency.seconds, i);
      return k < 0 ? "–" : fixed(latency.ms[k], 1, " ms");
    }, [], y.limits));
  }
  return lanes;
}

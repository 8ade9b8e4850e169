// What people say of an episode. Every change is saved at once, against the revision that was looked
// at; if somebody else saved meanwhile, nothing is lost: both versions are shown, and one decides.

import { post } from "./api.js";
import { field, h, replace, say } from "./dom.js";
import { clock, day, outcome } from "./words.js";

const OUTCOMES = ["success", "failure", "aborted"];

export class Annotator {
  // name: of the episode; about: /api/episode; series: null where the bag is broken.
  constructor(name, about, series, player, changed) {
    Object.assign(this, { name, about, series, player, changed });
    this.state = series ? series.annotations : about.annotations;
    this.queue = Promise.resolve();
    this.element = h("section", { class: "annotate", ariaLabel: "Annotation" });
    this.build();
    this.draw();
  }

  // Saves wait for each other, so that each states the revision of the one before.
  save(changes, text) {
    return this.send({ changes }, text);
  }

  undo() {
    if (this.state.undo === null) {
      say("nothing to undo: the episode is as recorded");
      return Promise.resolve();
    }
    return this.send({ undo: true }, "undone");
  }

  send(request, text) {
    this.queue = this.queue.then(async () => {
      const author = this.author.value.trim();
      try {
        this.state = await post("/api/annotate", { episode: this.name }, { revision: this.state.revision, author, ...request });
        this.conflict.replaceChildren();
        say(`${text}, revision ${this.state.revision}`);
      } catch (error) {
        if (error.status === 409) await this.told(error, request, text);
        else say(`not saved: ${error.message}`, true);
      }
      this.draw();
    });
    return this.queue;
  }

  async told(error, request, text) {
    this.state = await this.changed.reload();
    const again = "changes" in request ? h("button", { type: "button", onclick: () => this.send(request, text) }, "Save mine on top") : null;
    const drop = h("button", { type: "button", onclick: () => this.conflict.replaceChildren() }, "Keep theirs");
    replace(this.conflict, h("div", { class: "error", role: "alert" },
      h("strong", {}, "Not saved: somebody else changed this episode. "), error.message,
      h("p", {}, `Below is what they saved. Yours was: ${"changes" in request ? JSON.stringify(request.changes) : text}.`), again, drop));
    (again || drop).focus();
  }

  build() {
    this.conflict = h("div");
    this.author = h("input", { value: localStorage.getItem("author") || "", autocomplete: "name", placeholder: "your name",
      onchange: () => localStorage.setItem("author", this.author.value) });
    const key = { success: "s", failure: "f", aborted: "a" };
    this.outcomes = OUTCOMES.map((name) => h("button", { type: "button", class: "choice", onclick: () => this.save({ outcome: name }, name) },
      outcome(name), h("kbd", {}, key[name])));
    const text = (key, list, many = false) => {
      const control = h(many ? "textarea" : "input", { rows: 2, onchange: () => this.save({ [key]: control.value || null }, key),
        onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); control.blur(); } } });
      if (list) control.setAttribute("list", list);
      return control;
    };
    this.texts = { cause: text("cause", "causes"), stage: text("stage", "stages"), note: text("note", "", true) };
    this.uses = Object.fromEntries(["critic", "actor"].map((whom) => [whom, h("input", { type: "checkbox",
      onchange: () => this.save({ [`use_for_${whom}`]: this.uses[whom].checked }, `use for ${whom}`) })]));
    this.undoing = h("button", { type: "button", onclick: () => this.undo() }, "Undo ", h("kbd", {}, "u"));
    this.stages = h("ul", { class: "marks" });
    this.segments = h("ul", { class: "marks" });
    this.history = h("ol", { class: "history" });
    this.details = h("details", {}, h("summary", {}, "History ", h("kbd", {}, "h")), this.history);
    replace(this.element,
      h("h2", {}, "Judge"), this.conflict,
      h("div", { class: "choices", role: "group", ariaLabel: "Outcome" }, this.outcomes),
      field("Cause", this.texts.cause, "c"), h("datalist", { id: "causes" }, this.about.causes.map((value) => h("option", { value }))),
      field("Stage", this.texts.stage, "t"),
      h("fieldset", {}, h("legend", {}, "Learn from it"),
        ["critic", "actor"].map((whom, i) => h("label", { class: "check" }, this.uses[whom], `${whom} `, h("kbd", {}, `${i + 1}`)))),
      field("Note", this.texts.note, "n"),
      this.series ? [
        h("h3", {}, "Stage boundaries "), this.stages,
        h("button", { type: "button", onclick: () => this.boundary() }, "Stage begins here ", h("kbd", {}, "b")),
        h("h3", {}, "Operator's segments"), this.segments,
        h("div", { class: "buttons" },
          h("button", { type: "button", onclick: () => this.begin() }, "From here ", h("kbd", {}, "[")),
          h("button", { type: "button", onclick: () => this.finish() }, "To here ", h("kbd", {}, "]"))),
      ] : null,
      h("div", { class: "buttons" }, this.undoing), this.details, field("Author", this.author));
  }

  // As annotated, else as recorded.
  value(key) {
    const said = this.state.current[key];
    if (said !== null && said !== undefined) return said;
    if (key === "note") return "";
    return this.about.info ? this.about.info[key] : null;
  }

  draw() {
    if (!this.state) {
      replace(this.element, h("p", { class: "error", role: "alert" }, this.about.error));
      return;
    }
    const result = this.value("outcome");
    this.outcomes.forEach((button, i) => button.setAttribute("aria-pressed", String(OUTCOMES[i] === result)));
    for (const [key, control] of Object.entries(this.texts)) {
      if (control !== document.activeElement) control.value = this.value(key) || "";
    }
    for (const [whom, box] of Object.entries(this.uses)) box.checked = this.value(`use_for_${whom}`) !== false;
    this.undoing.disabled = this.state.undo === null;
    if (this.series) this.drawMarks();
    replace(this.history, this.state.history.length ? this.state.history.map((revision) => h("li", { value: revision.number },
      h("span", {}, said(revision)), h("span", { class: "note below" }, `${revision.author}, ${day(revision.time)}`),
      revision.number < this.state.revision ? h("button", { type: "button", class: "quiet", onclick: () => this.send({ revert: revision.number }, `back to ${revision.number}`) }, "back to this") : null)).reverse()
      : h("li", { class: "note" }, "as recorded"));
    this.changed.drawn(this.state.current);
  }

  time(step) {
    return clock(step >= this.series.steps ? this.player.total : this.series.seconds[step]);
  }

  drawMarks() {
    const { stages, interventions } = this.state.current;
    const go = (step) => h("button", { type: "button", class: "quiet", onclick: () => this.player.seek(step) }, this.time(step));
    const remove = (label, run) => h("button", { type: "button", class: "quiet", ariaLabel: label, onclick: run }, "✕");
    replace(this.stages, (stages || []).map(([step, name], i) => h("li", {}, go(step), ` ${name || "(unnamed)"} `,
      remove(`remove stage ${name}`, () => this.save({ stages: stages.filter((_, k) => k !== i) }, "stage removed")))));
    replace(this.segments, (interventions || this.recorded()).map(([a, b], i, all) => h("li", {}, go(a), " to ", go(b), " ",
      interventions ? null : h("span", { class: "note" }, "recorded "),
      remove(`remove segment ${i + 1}`, () => this.save({ interventions: all.filter((_, k) => k !== i) }, "segment removed")))),
    this.from === undefined ? null : h("li", {}, `from ${this.time(this.from)} to …`));
  }

  // What the recording says of who drove.
  recorded() {
    const human = ["human", "blend"].map((name) => this.series.sources.indexOf(name));
    const found = [];
    this.series.source.forEach((value, step) => {
      if (!human.includes(value)) return;
      if (found.length && found[found.length - 1][1] === step) found[found.length - 1][1] = step + 1;
      else found.push([step, step + 1]);
    });
    return found;
  }

  boundary() {
    const name = this.texts.stage.value;
    const input = h("input", { value: name, ariaLabel: "Name of the stage" });
    const step = this.player.step;
    const done = (save) => {
      item.remove();
      if (!save) return;
      const others = (this.state.current.stages || []).filter(([at]) => at !== step);
      this.save({ stages: [...others, [step, input.value.trim()]].sort((a, b) => a[0] - b[0]) }, "stage boundary");
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") { event.preventDefault(); done(false); }
    });
    const item = h("li", {}, `${this.time(step)} `, input, h("button", { type: "button", onclick: () => done(true) }, "Save"));
    this.stages.append(item);
    input.focus();
    input.select();
  }

  begin() {
    this.from = this.player.step;
    this.drawMarks();
    say(`segment from ${this.time(this.from)}: go to its end and press ]`);
  }

  finish() {
    const to = this.player.step + 1;
    if (this.from === undefined || to <= this.from) {
      say("first mark where the segment begins, with [", true);
      return;
    }
    const all = [...(this.state.current.interventions || this.recorded()), [this.from, to]].sort((a, b) => a[0] - b[0]);
    this.from = undefined;
    const joined = [];
    for (const [a, b] of all) {
      const last = joined[joined.length - 1];
      if (last && a <= last[1]) last[1] = Math.max(last[1], b);
      else joined.push([a, b]);
    }
    this.save({ interventions: joined }, "segment");
  }

  keys(bind) {
    const focus = (key) => () => { this.texts[key].focus(); this.texts[key].select(); };
    const flip = (whom) => () => { this.uses[whom].checked = !this.uses[whom].checked; this.save({ [`use_for_${whom}`]: this.uses[whom].checked }, `use for ${whom}`); };
    bind([
      ["s", "success", () => this.save({ outcome: "success" }, "success")],
      ["f", "failure", () => this.save({ outcome: "failure" }, "failure")],
      ["a", "aborted", () => this.save({ outcome: "aborted" }, "aborted")],
      ["c", "cause", focus("cause")],
      ["t", "stage", focus("stage")],
      ["n", "note", focus("note")],
      ["1", "use for the critic, or not", flip("critic")],
      ["2", "use for the actor, or not", flip("actor")],
      ...(this.series ? [
        ["b", "a stage begins here", () => this.boundary()],
        ["[", "operator's segment from here", () => this.begin()],
        ["]", "operator's segment to here", () => this.finish()],
      ] : []),
      [["u", "Ctrl+z"], "undo", () => this.undo()],
      ["h", "history", () => { this.details.open = !this.details.open; }],
      ["Escape", "", () => { this.from = undefined; if (this.series) this.drawMarks(); }],
    ]);
  }
}

function said(revision) {
  const parts = Object.entries(revision.changed).map(([key, value]) => {
    const shown = Array.isArray(value) ? `${value.length}` : value === null ? "as recorded" : String(value);
    return `${key.replaceAll("_", " ")}: ${shown}`;
  });
  return [revision.comment, parts.join(", ")].filter(Boolean).join(": ") || "no change";
}

// The table of episodes: filtered and sorted here, so that a filter costs no request.

import { address, get } from "./api.js";
import { choice, field, h, replace } from "./dom.js";
import { bind } from "./keys.js";
import { day, link, minutes, outcome, percent, policy } from "./words.js";

const AT_ONCE = 60;
const TEXTS = ["task", "stage", "kind", "policy", "outcome"];
const COLUMNS = [
  ["id", "Episode"], ["outcome", "Outcome"], ["kind", "Kind"], ["stage", "Task, stage"],
  ["policy", "Policy"], ["seconds", "Length"], ["human", "Operator"], ["flags", "Quality"],
  ["created", "Recorded"],
];

export async function show(main, query) {
  const list = await get("/api/episodes");
  new Table(main, list, query);
}

class Table {
  constructor(main, list, query) {
    this.all = list.episodes;
    this.wanted = Object.fromEntries(query);
    this.sorted = { by: query.get("sort") || "created", down: query.get("down") === "1" };
    this.totals = h("div", { class: "totals", "aria-live": "polite" });
    this.stages = h("div", { class: "stages" });
    this.checking = h("p", { class: "note checking", role: "status" });
    this.quality = new Map();
    this.body = h("tbody");
    this.head = h("tr");
    this.more = h("div", { class: "more" });
    replace(main,
      h("h1", {}, "Episodes"),
      h("p", { class: "note" }, list.root),
      quotas(list.quotas), this.filters(), this.totals, this.stages, this.checking,
      h("div", { class: "scroll", tabIndex: 0, role: "region", ariaLabel: "Table of episodes" },
        h("table", { class: "episodes" }, h("thead", {}, this.head), this.body)),
      this.more);
    this.watch = new IntersectionObserver((seen) => {
      if (seen.some((item) => item.isIntersecting)) this.extend();
    }, { rootMargin: "600px" });
    this.watch.observe(this.more);
    bind([
      ["/", "search", () => this.search.focus()],
      [["ArrowDown", "j"], "next row", () => this.move(1), { held: true }],
      [["ArrowUp", "k"], "row before", () => this.move(-1), { held: true }],
      ["Enter", "open the row", () => this.body.querySelector("a")?.click()],
      ["x", "clear all filters", () => this.clear()],
    ]);
    this.update();
    this.check();
  }

  // Whether streams fit together takes a look into every bag: known some time after the list.
  async check() {
    let left = 1;
    while (left) {
      try {
        const found = await get("/api/checks");
        left = found.left;
        this.checking.textContent = left ? `alignment looked at in ${found.of - left} of ${found.of} episodes` : "";
        this.learn(found.flags);
      } catch (error) {
        this.checking.textContent = `alignment is not known: ${error.message}`;
        return;
      }
      if (left) await new Promise((done) => { setTimeout(done, 700); });
    }
  }

  learn(flags) {
    const news = this.all.filter((row) => flags[row.name] && !row.flags.some(([word]) => word === flags[row.name][0]));
    for (const row of news) {
      row.flags.push(flags[row.name]);
      this.quality.get(row.name)?.replaceChildren(...badges(row));
    }
    if (!news.length) return;
    const [word] = flags[news[0].name];
    if (![...this.flag.options].some((option) => option.value === word)) this.flag.append(h("option", { value: word }, word));
    if (this.wanted.flag) this.flag.value = this.wanted.flag;
    if (this.sorted.by === "flags" || !["*", "", undefined].includes(this.wanted.flag)) this.update();
  }

  filters() {
    const set = (key) => (value) => { this.wanted[key] = value; this.update(); };
    this.search = h("input", {
      type: "search", value: this.wanted.text || "", placeholder: "id or cause",
      oninput: () => set("text")(this.search.value) });
    const controls = [field("Search", this.search, "/")];
    for (const key of TEXTS) {
      const values = [...new Set(this.all.filter((row) => row.status !== "broken").map((row) => row[key]))].sort();
      const name = { outcome: (v) => v || "not judged", policy }[key] || ((v) => v);
      const options = [["*", "any"], ...values.map((v) => [v, name(v) || "none"])];
      controls.push(field(key[0].toUpperCase() + key.slice(1), choice(options, this.wanted[key] ?? "*", set(key))));
    }
    const flags = [...new Set(this.all.flatMap((row) => row.flags.map(([word]) => word)))].sort();
    this.flag = choice([["*", "any"], ["-", "no remarks"], ["+", "any remark"],
      ...flags.map((word) => [word, word])], this.wanted.flag ?? "*", set("flag"));
    controls.push(
      field("Quality", this.flag),
      field("Excluded", choice([["*", "any"], ["no", "from nothing"], ["critic", "from the critic"],
        ["actor", "from the actor"]], this.wanted.excluded ?? "*", set("excluded"))));
    const share = (key, text, initial) => {
      const input = h("input", { type: "number", min: 0, max: 100, value: this.wanted[key] ?? initial,
        oninput: () => set(key)(input.value) });
      return field(text, input);
    };
    controls.push(share("least", "Operator at least, %", ""), share("most", "at most, %", ""));
    controls.push(h("button", { type: "button", class: "quiet clear", onclick: () => this.clear() }, "Clear"));
    return h("form", { class: "filters", role: "search", ariaLabel: "Filter episodes", onsubmit: (e) => e.preventDefault() },
      controls);
  }

  clear() {
    location.href = "/";
  }

  matches(row) {
    const w = this.wanted;
    const any = (value) => value === undefined || value === "*" || value === "";
    for (const key of TEXTS) {
      if (w[key] !== undefined && w[key] !== "*" && row[key] !== w[key]) return false;
    }
    if (w.text) {
      const where = [row.id, row.cause, row.policy, row.pair, row.name, row.error].join(" ").toLowerCase();
      if (!w.text.toLowerCase().split(/\s+/).every((word) => where.includes(word))) return false;
    }
    const words = row.flags.map(([word]) => word);
    if (w.flag === "-" && words.length) return false;
    if (w.flag === "+" && !words.length) return false;
    if (!any(w.flag) && !["-", "+"].includes(w.flag) && !words.includes(w.flag)) return false;
    if (w.excluded === "no" && !(row.critic && row.actor)) return false;
    if (w.excluded === "critic" && row.critic) return false;
    if (w.excluded === "actor" && row.actor) return false;
    if (w.least && 100 * row.human < Number(w.least)) return false;
    if (w.most && 100 * row.human > Number(w.most)) return false;
    return true;
  }

  update() {
    const { by, down } = this.sorted;
    const value = (row) => (by === "flags" ? row.flags.length : by === "stage" ? `${row.task} ${row.stage}` : row[by]);
    const order = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (down ? -1 : 1);
    this.rows = this.all.filter((row) => this.matches(row)).sort(order);
    const kept = Object.entries(this.wanted).filter(([, v]) => v !== "*" && v !== "");
    if (by !== "created" || down) kept.push(["sort", by], ["down", down ? "1" : "0"]);
    const unique = new URLSearchParams(Object.fromEntries(kept));
    history.replaceState(null, "", unique.size ? `?${unique}` : "/");
    sessionStorage.setItem("list", JSON.stringify(this.rows.map((row) => row.name)));
    this.drawHead();
    this.drawTotals();
    replace(this.stages, byStage(this.rows));
    this.shown = 0;
    this.quality.clear();
    this.body.replaceChildren();
    this.extend();
  }

  drawHead() {
    const { by, down } = this.sorted;
    replace(this.head, h("th", { scope: "col" }, h("span", { class: "unseen" }, "Last picture")),
      COLUMNS.map(([key, text]) => h("th", { scope: "col", class: ["seconds", "human"].includes(key) ? "number" : "", "aria-sort": by === key ? (down ? "descending" : "ascending") : null },
        h("button", { type: "button", class: "sort", onclick: () => {
          this.sorted = { by: key, down: by === key && !down };
          this.update();
          this.head.querySelectorAll("button")[COLUMNS.findIndex(([k]) => k === key)].focus();
        } }, text, by === key ? h("span", { "aria-hidden": "true" }, down ? " ↓" : " ↑") : null))));
  }

  drawTotals() {
    const cell = (title, rows) => {
      const good = rows.filter((row) => row.outcome === "success").length;
      const bad = rows.filter((row) => row.outcome === "failure").length;
      const seconds = rows.reduce((sum, row) => sum + row.seconds, 0);
      const human = rows.reduce((sum, row) => sum + row.seconds * row.human, 0);
      return h("div", { class: "total" }, h("strong", {}, `${rows.length}`), ` ${title}`,
        h("span", { class: "note" }, `${good} of ${good + bad} succeeded · ${minutes(seconds)} · operator ${
          seconds ? percent(human / seconds) : "–"}`));
    };
    const kinds = [...new Set(this.rows.map((row) => row.kind))].filter(Boolean);
    const all = this.rows.length === this.all.length ? "episodes" : `of ${this.all.length} episodes`;
    const broken = this.rows.filter((row) => row.status === "broken").length;
    replace(this.totals, cell(all, this.rows), kinds.length > 1
      ? kinds.map((kind) => cell(`${kind}s`, this.rows.filter((row) => row.kind === kind))) : [],
    broken ? h("div", { class: "total" }, h("strong", {}, `${broken}`), " broken") : null);
  }

  extend() {
    const next = this.rows.slice(this.shown, this.shown + AT_ONCE);
    this.body.append(...next.map((row) => line(row, this.quality)));
    this.shown += next.length;
    this.more.textContent = this.shown < this.rows.length
      ? `${this.rows.length - this.shown} more below` : this.rows.length ? "" : "No episode fits the filters.";
    if (this.shown < this.rows.length) {
      // Observed anew, or a sentinel that stays in sight would not report again.
      this.watch.unobserve(this.more);
      this.watch.observe(this.more);
    }
  }

  move(by) {
    const links = [...this.body.querySelectorAll("a.name")];
    const at = links.indexOf(document.activeElement);
    if (at + by >= links.length - 1) this.extend();
    links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  }
}

const badges = (row) => row.flags.map(([word, story]) => h("span", { class: "flag", title: story }, word));

// What the session's plan wants, where `dexpie web --plan` names one.
function quotas(stages) {
  if (!stages.length) return null;
  // A session works on one task; of several, each has its own quotas.
  const several = new Set(stages.map(({ task }) => task)).size > 1;
  const called = ({ task, stage }) => [several ? task : "", stage || "all"].filter(Boolean).join(", ");
  return h("section", { class: "quotas", ariaLabel: "Quotas" }, h("h2", { class: "small" }, "Wanted by the plan"), stages.map((row) =>
    h("div", { class: "quota" }, h("strong", {}, called(row)), row.complete ? h("span", { class: "good" }, "✓ all there") : null,
      h("meter", { min: 0, max: 1, value: row.share, ariaLabel: `${called(row)}: ${percent(row.share)} of what is wanted` }),
      h("span", { class: "note" }, Object.entries(row.wanted).map(([name, n]) => `${name} ${row.have[name]} of ${n}`).join(" · ")))));
}

// The same figures for every stage of what is filtered.
function byStage(rows) {
  const whole = rows.filter((row) => row.status !== "broken");
  const keys = [...new Set(whole.map((row) => [row.task, row.stage].filter(Boolean).join(", ")))].sort();
  if (keys.length < 2) return [];
  const kinds = [["demonstration", "Demonstrations"], ["deployment", "Deployments"], ["correction", "Corrections"], ["evaluation", "Evaluations"]]
    .filter(([kind]) => whole.some((row) => row.kind === kind));
  const cells = (of) => {
    const failed = of.filter((row) => row.kind === "deployment" && row.outcome === "failure" && row.pair);
    const corrected = new Set(of.filter((row) => row.kind === "correction" && row.outcome === "success").map((row) => row.pair));
    return [...kinds.map(([kind]) => of.filter((row) => row.kind === kind).length),
      ...["success", "failure"].map((name) => of.filter((row) => row.outcome === name).length),
      failed.filter((row) => corrected.has(row.pair)).length, minutes(of.reduce((sum, row) => sum + row.seconds, 0))];
  };
  const heads = ["Task, stage", ...kinds.map(([, text]) => text), "Succeeded", "Failed", "Pairs", "Length"];
  return [h("details", {}, h("summary", {}, `By stage (${keys.length})`), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((text, i) => h("th", { scope: "col", class: i ? "number" : "" }, text)))),
    h("tbody", {}, keys.map((key) => h("tr", {}, h("th", { scope: "row" }, key || "none"),
      cells(whole.filter((row) => [row.task, row.stage].filter(Boolean).join(", ") === key)).map((text) => h("td", { class: "number" }, text))))))))];
}

function line(row, quality) {
  const broken = row.status === "broken";
  const picture = broken ? h("span", { class: "no-picture" }, "broken") : h("img", {
    src: address("/api/thumbnail", { episode: row.name }), loading: "lazy", decoding: "async", alt: "",
    width: 72, height: 54, onerror: (event) => event.target.replaceWith(h("span", { class: "no-picture" }, "no picture")) });
  const flags = h("td", {}, badges(row));
  quality.set(row.name, flags);
  const excluded = [["critic", row.critic], ["actor", row.actor]].filter(([, used]) => !used);
  return h("tr", { class: broken ? "broken" : "" },
    h("td", {}, picture),
    h("td", {}, h("a", { class: "name", href: link(row.name) }, row.id),
      row.pair ? h("a", { class: "below note", href: `/compare?${new URLSearchParams({ pair: row.pair })}` }, `pair ${row.pair}`) : null,
      broken ? h("span", { class: "below bad" }, row.error) : null),
    h("td", {}, broken ? "" : outcome(row.outcome, row.cause),
      excluded.length ? h("span", { class: "below note" }, `not for ${excluded.map(([n]) => n).join(", ")}`) : null),
    h("td", {}, row.kind),
    h("td", {}, [row.task, row.stage].filter(Boolean).join(", ")),
    h("td", { title: row.policy }, policy(row.policy)),
    h("td", { class: "number" }, broken ? "" : `${row.seconds.toFixed(1)} s`),
    h("td", { class: "number" }, broken ? "" : percent(row.human)),
    flags, h("td", { class: "note" }, day(row.created)));
}

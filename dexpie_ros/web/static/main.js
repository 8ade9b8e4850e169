// Which page is open decides which module runs.

import { h, replace, say } from "./dom.js";
import { bind, leaving, start } from "./keys.js";

const PAGES = {
  "/": ["Episodes", () => import("./episodes.js")],
  "/episode": ["Episode", () => import("./episode.js")],
  "/compare": ["Compare", () => import("./compare.js")],
  "/live": ["Live", () => import("./live.js")],
  "/results": ["Results", () => import("./results.js")],
};

const [title, load] = PAGES[location.pathname] || PAGES["/"];
document.title = `${title} · dexpie`;
for (const link of document.querySelectorAll("header.top nav a")) {
  if (link.getAttribute("href") === location.pathname.replace(/^\/episode$/, "/")) link.setAttribute("aria-current", "page");
}
start();
bind([["g", "go to the table of episodes", () => {
  const why = leaving.objection();
  if (why) say(why, true);
  else location.href = "/";
}]]);
const main = document.getElementById("main");
try {
  await (await load()).show(main, new URLSearchParams(location.search));
  document.body.dataset.ready = "yes";
} catch (error) {
  replace(main, h("div", { class: "error", role: "alert" }, error.message));
  document.body.dataset.ready = "no";
  if (!error.status) throw error;
}

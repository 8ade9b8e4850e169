// A value-overlay video of the episode, made by the server while one goes on looking.

import { address, get, post } from "./api.js";
import { h, replace, say } from "./dom.js";

const EVERY_MS = 300;

// tag: function that names the labels which are shown.
export class VideoMaker {
  constructor(name, tag) {
    this.name = name;
    this.tag = tag;
    this.busy = null;
    this.button = h("button", { type: "button", onclick: () => this.start() }, "Save as video ", h("kbd", {}, "v"));
    this.state = h("span", { class: "video-state", role: "status" });
    this.element = h("div", { class: "video" }, this.button, this.state);
  }

  async start() {
    if (this.busy) return;
    this.button.disabled = true;
    try {
      let video = await post("/api/video", { episode: this.name }, { tag: this.tag() });
      this.busy = video.id;
      this.working(video);
      while (video.state === "waiting" || video.state === "running") {
        await new Promise((done) => { setTimeout(done, EVERY_MS); });
        video = await get("/api/video", { id: video.id });
        this.bar.value = video.progress;
        this.share.textContent = video.state === "waiting" ? "about to begin" : `${Math.floor(100 * video.progress)} %`;
      }
      this.over(video);
    } catch (error) {
      this.failed(error.message);
    }
    this.busy = null;
    this.button.disabled = false;
  }

  working(video) {
    this.bar = h("progress", { max: 1, value: video.progress, ariaLabel: "Video" });
    this.share = h("span", { class: "note", "aria-hidden": "true" }, "0 %");
    replace(this.state, this.bar, this.share, h("button", { type: "button", class: "quiet", onclick: () => this.cancel() }, "Cancel"));
  }

  async cancel() {
    try {
      await post("/api/video", {}, { cancel: this.busy });
    } catch (error) {
      say(error.message, true);
    }
  }

  over(video) {
    if (video.state === "failed") {
      this.failed(video.error);
      return;
    }
    if (video.state === "cancelled") {
      replace(this.state, h("span", { class: "note" }, "cancelled"));
      return;
    }
    const link = h("a", { href: address("/video", { id: video.id }), download: video.name },
      `${video.name} (${(video.bytes / 1e6).toFixed(1)} MB)`);
    replace(this.state, link);
    link.click();
  }

  failed(message) {
    replace(this.state, h("span", { class: "bad" }, `No video: ${message}`));
  }
}

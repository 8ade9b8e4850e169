// The picture of a start that has to be restored, over the live one of the front camera.

import { address } from "./api.js";
import { h } from "./dom.js";

const BUSY = ["running", "finishing"];

export class StartOverlay {
  // figure: of the camera.
  constructor(figure) {
    this.image = h("img", { class: "start-picture", alt: "the start to be restored", hidden: true });
    figure.insertBefore(this.image, figure.querySelector("figcaption"));
    this.box = h("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.slider = h("input", { type: "range", min: 0, max: 100, step: 5, value: 50, ariaLabel: "Opacity of the start's picture",
      oninput: () => this.draw() });
    this.text = h("span");
    this.element = h("div", { class: "start-controls", hidden: true },
      h("label", { class: "check" }, this.box, this.text, h("kbd", {}, "o")), this.slider);
  }

  // state: of the graph.
  update({ start, phase }) {
    // In a running episode the picture would only be in the way.
    this.wanted = start && !start.problem && !BUSY.includes(phase) ? start.episode : "";
    this.element.hidden = !start || BUSY.includes(phase);
    if (start) {
      const text = start.problem ? `no picture of the start of ${start.episode}: ${start.problem}` : `start of ${start.episode} `;
      if (this.text.textContent !== text) this.text.textContent = text;
      this.box.hidden = this.slider.hidden = Boolean(start.problem);
    }
    if (this.wanted && this.wanted !== this.shown) {
      this.shown = this.wanted;
      this.image.src = address("/api/live/start", { episode: this.wanted });
      this.image.alt = `how the scene was at the start of ${this.wanted}`;
    }
    this.draw();
  }

  toggle() {
    this.box.checked = !this.box.checked;
    this.draw();
  }

  draw() {
    this.image.hidden = !this.wanted || !this.box.checked;
    this.image.style.opacity = String(Number(this.slider.value) / 100);
  }
}

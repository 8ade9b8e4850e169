// Elements from plain values. Text goes in as text nodes only: nothing recorded becomes markup.

export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

const SVG = "http://www.w3.org/2000/svg";

export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.setAttribute("class", value);
    else if (key in element && !(element instanceof SVGElement) && key !== "list") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let labels = 0;

// A form control below its label.
export function field(text, control, key = "") {
  control.id ||= `field-${++labels}`;
  return h("div", { class: "field" },
    h("label", { htmlFor: control.id }, text, key ? h("kbd", {}, key) : null), control);
}

export function choice(options, value, onchange) {
  const select = h("select", { onchange: () => onchange(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return select;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

// One sentence to the user, also to a screen reader.
export function say(text, bad = false) {
  const place = document.getElementById("said");
  place.className = bad ? "bad" : "";
  place.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { place.textContent = ""; }, bad ? 12000 : 4000);
}

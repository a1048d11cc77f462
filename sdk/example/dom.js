// Elements, made without a framework. Text stays text: only the art, which is ours, is parsed.

/** An element with attributes (`onclick` and the like are listeners) and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** A picture of a product, for eyes only: its name stands beside it. */
export function art(good) {
  const frame = h("div", { class: `art ${good.category}`, "aria-hidden": "true" });
  frame.innerHTML = `<svg viewBox="0 0 120 120">${good.art}</svg>`;
  return frame;
}

const EURO = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });

export const euro = (amount) => EURO.format(amount);

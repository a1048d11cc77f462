// The shop: finds the page that the address names, and draws it. The links are links; the history API makes them quick.

import * as cart from "./cart.js";
import { art, euro, h } from "./dom.js";
import { CATEGORIES, GOODS, goodOf } from "./goods.js";
import { remember, remembered } from "./memory.js";

/** The name under which the visitor's choice is kept. */
const CONSENT = "larkfield-consent";
const main = document.getElementById("main");

/** What is told of a product, so that figures can be grouped by it. */
const about = (good) => ({ product: good.id, category: good.category });
const dataset = (good) => ({ "data-product": good.id, "data-category": good.category });

const card = (good) =>
  h("li", {},
    h("a", { class: "card", href: `/products/${good.id}`, ...dataset(good) },
      art(good),
      h("span", { class: "name" }, good.name),
      h("span", { class: "price" }, euro(good.price))));

function catalogue(category) {
  const goods = GOODS.filter((good) => !category || good.category === category);
  return {
    title: CATEGORIES[category] ?? "Well-made things, for a long time",
    content: [
      !category && h("p", { class: "lead" }, "Twelve things that do one job each, and do it well."),
      h("ul", { class: "goods" }, goods.map(card)),
    ],
  };
}

function product(good) {
  catchment("track", "product_view", about(good));
  const add = h("button", {
    ...dataset(good),
    onclick: () => {
      cart.put(good.id, cart.quantityOf(good.id) + 1);
      catchment("track", "add_to_cart", { ...about(good), price: good.price });
      drawCount();
      add.textContent = "In your cart. One more?";
    },
  }, "Add to cart");
  const others = GOODS.filter((other) => other.category === good.category && other !== good);
  return {
    title: good.name,
    heading: false,
    content: [
      h("article", { class: "product" },
        art(good),
        h("div", {},
          h("p", { class: "crumb" }, h("a", { href: `/categories/${good.category}` }, CATEGORIES[good.category])),
          h("h1", { tabindex: "-1" }, good.name),
          h("p", { class: "price" }, euro(good.price)),
          h("p", {}, good.text),
          add,
          h("p", { class: "aside" }, "Sent within a day. Thirty days to change your mind."))),
      h("h2", {}, `More for the ${good.category === "travel" ? "road" : good.category}`),
      h("ul", { class: "goods" }, others.map(card)),
    ],
  };
}

function cartPage() {
  const lines = cart.lines();
  if (lines.length === 0) {
    return { title: "Your cart is empty", content: [h("p", {}, h("a", { class: "button", href: "/" }, "See the goods"))] };
  }
  const change = (good) => (event) => {
    cart.put(good.id, Number(event.target.value));
    draw();
    document.getElementById(`quantity-${good.id}`)?.focus();
  };
  return {
    title: "Your cart",
    content: [
      h("ul", { class: "lines" }, lines.map(({ good, quantity }) =>
        h("li", {},
          art(good),
          h("a", { class: "name", href: `/products/${good.id}` }, good.name),
          h("label", {}, h("span", { class: "hidden" }, `Quantity of ${good.name}`),
            h("select", { id: `quantity-${good.id}`, onchange: change(good) },
              Array.from({ length: 10 }, (_, n) => h("option", { value: n, selected: n === quantity }, n || "None")))),
          h("span", { class: "price" }, euro(good.price * quantity))))),
      h("p", { class: "total" }, "Total ", h("strong", {}, euro(cart.totalOf()))),
      h("p", { class: "total" }, h("a", { class: "button", href: "/checkout" }, "Go to checkout")),
    ],
  };
}

function checkout() {
  if (cart.countOf() === 0) return cartPage();
  const field = (label, name, autocomplete, type = "text") =>
    h("label", {}, label, h("input", { name, type, autocomplete, required: true }));
  const buy = (event) => {
    event.preventDefault();
    catchment("track", "checkout", { items: cart.countOf() });
    // A line each, so that revenue can be grouped by product and category.
    for (const { good, quantity } of cart.lines()) catchment("revenue", good.price * quantity, "EUR", about(good));
    cart.empty();
    go("/thanks");
  };
  return {
    title: "Checkout",
    content: [
      h("form", { class: "checkout", onsubmit: buy },
        field("Name", "name", "name"),
        field("E-mail", "email", "email", "email"),
        field("Address", "address", "street-address"),
        h("button", {}, `Pay ${euro(cart.totalOf())}`),
        h("p", { class: "aside" }, "It is only an example: no money moves.")),
    ],
  };
}

const thanks = () => ({
  title: "Thank you",
  content: [
    h("p", { class: "lead" }, "Your order would be on its way."),
    h("p", {}, h("a", { class: "button", href: "/" }, "Back to the goods")),
  ],
});

const lost = () => ({
  title: "There is nothing here",
  content: [h("p", {}, h("a", { class: "button", href: "/" }, "See the goods"))],
});

function pageOf(path) {
  const [, kind, name] = path.split("/");
  if (path === "/") return catalogue();
  if (kind === "categories" && Object.hasOwn(CATEGORIES, name)) return catalogue(name);
  if (kind === "products" && goodOf(name)) return product(goodOf(name));
  return { "/cart": cartPage, "/checkout": checkout, "/thanks": thanks }[path]?.() ?? lost();
}

function drawCount() {
  const count = cart.countOf();
  const badge = document.getElementById("count");
  badge.replaceChildren(count ? String(count) : "", h("span", { class: "hidden" }, count === 1 ? " item" : " items"));
}

/** The path that is shown. */
let drawn;

function draw() {
  drawn = location.pathname;
  const { title, content, heading = true } = pageOf(location.pathname);
  document.title = location.pathname === "/" ? "Larkfield Goods" : `${title} · Larkfield Goods`;
  main.replaceChildren(...(heading ? [h("h1", { tabindex: "-1" }, title)] : []), ...content.filter(Boolean));
  for (const link of document.querySelectorAll("header a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  drawCount();
}

/** Draws another page, and says so to who can't see it: focus goes to its heading. */
function go(path) {
  history.pushState(null, "", path);
  draw();
  scrollTo(0, 0);
  main.querySelector("h1")?.focus({ preventScroll: true });
}

document.getElementById("categories").append(
  ...Object.entries(CATEGORIES).map(([id, name]) => h("a", { href: `/categories/${id}` }, name)));
const consent = document.getElementById("consent");
consent.checked = remembered(CONSENT) === "yes";
consent.addEventListener("change", () => {
  remember(CONSENT, consent.checked ? "yes" : "no");
  catchment("consent", consent.checked);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (link.pathname !== location.pathname) go(link.pathname);
});
// A link within the page, such as the one to its goods, shows no other.
addEventListener("popstate", () => location.pathname !== drawn && draw());
draw();

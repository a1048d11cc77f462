// What is in the cart: product → quantity, kept across reloads where the browser allows it.

import { goodOf } from "./goods.js";
import { remember, remembered } from "./memory.js";

const NAME = "larkfield-cart";
/** Of one product. */
const QUANTITY_MAX = 9;

let quantities = load();

/** The lines of the cart: `{ good, quantity }`. */
export const lines = () => Object.entries(quantities).map(([id, quantity]) => ({ good: goodOf(id), quantity }));

export const countOf = () => lines().reduce((sum, line) => sum + line.quantity, 0);

export const totalOf = () => lines().reduce((sum, line) => sum + line.quantity * line.good.price, 0);

export const quantityOf = (id) => quantities[id] ?? 0;

/** Puts so many of a product into the cart; 0 takes it out. */
export function put(id, quantity) {
  if (quantity > 0) quantities[id] = Math.min(quantity, QUANTITY_MAX);
  else delete quantities[id];
  remember(NAME, JSON.stringify(quantities));
}

export function empty() {
  quantities = {};
  remember(NAME, JSON.stringify(quantities));
}

function load() {
  try {
    const stored = Object.entries(JSON.parse(remembered(NAME)) ?? {});
    return Object.fromEntries(stored.filter(([id, quantity]) => goodOf(id) && quantity > 0 && quantity <= QUANTITY_MAX));
  } catch {
    return {};
  }
}

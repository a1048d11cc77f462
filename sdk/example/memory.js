// What this browser remembers of the shop, where it allows it; else as long as the page lasts.

const page = new Map();

export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return page.get(name) ?? null;
  }
}

export function remember(name, value) {
  page.set(name, value);
  try {
    localStorage.setItem(name, value);
  } catch {
    // The page remembers.
  }
}

// Before the first paint: the theme that was chosen, and whether somebody is signed in, so that nothing flashes. A key in the
// address is taken out of it at once: what is in an address is seen, and kept in histories.
try {
  const root = document.documentElement;
  const theme = localStorage.getItem("catchment-theme");
  if (theme) root.dataset.theme = theme;
  const pairs = location.hash.slice(1).split("&");
  const key = pairs.find((pair) => /^key=./.test(pair));
  if (key) {
    sessionStorage.setItem("catchment-key", key.slice(4));
    history.replaceState(null, "", `#${pairs.filter((pair) => !pair.startsWith("key=")).join("&")}`);
  }
  if (sessionStorage.getItem("catchment-key")) root.dataset.signed = "";
} catch {
  // Storage is forbidden here: the system's theme, and a key for as long as the page stays.
}

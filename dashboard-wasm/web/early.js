// Before the first paint: the theme that was chosen, and whether somebody is signed in, so that nothing flashes.
try {
  const root = document.documentElement;
  const theme = localStorage.getItem("catchment-theme");
  if (theme) root.dataset.theme = theme;
  if (sessionStorage.getItem("catchment-key") || /[#&]key=/.test(location.hash)) root.dataset.signed = "";
} catch {
  // Storage is forbidden here: the system's theme, and a key for as long as the page stays.
}

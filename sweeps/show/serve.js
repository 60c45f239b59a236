"use strict";
// Loads the page again, at its address with the fragment, when the server has a newer one; not while it is in use.
(() => {
  const mine = document.currentScript.dataset.version;
  const title = document.title;
  let used = 0;
  for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
    addEventListener(kind, () => { used = Date.now(); }, { capture: true, passive: true });
  }
  async function look() {
    if (!document.hidden && Date.now() - used > 3000) {
      try {
        const answer = await fetch(`version${location.search}`);
        const newest = await answer.text();
        if (answer.ok && newest !== mine && Date.now() - used > 3000) return location.reload();
        document.title = title;
      } catch {
        document.title = `(not connected) ${title}`;
      }
    }
    setTimeout(look, 1000);
  }
  look();
})();

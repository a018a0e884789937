// Typesets formulas that are in the window, and the rest once the reader stirs:
// MathJax is larger than everything else on a page together.
(() => {
  "use strict";

  const waiting = new Set(document.querySelectorAll(".math"));
  if (!waiting.size) return;

  let loading; // a promise
  function load() {
    const root = document.documentElement.dataset.content_root;
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${root}_static/tex-svg-full.js`;
      script.onload = () => MathJax.startup.promise.then(resolve);
      script.onerror = reject;
      document.head.append(script);
    });
    return loading;
  }

  let turn = Promise.resolve(); // MathJax wants one call after the other
  function typeset(formulas) {
    const mine = formulas.filter((formula) => waiting.delete(formula));
    mine.forEach((formula) => watch.unobserve(formula));
    if (mine.length) turn = turn.then(load).then(() => MathJax.typesetPromise(mine));
    return turn;
  }

  const watch = new IntersectionObserver(
    (seen) => typeset(seen.filter((s) => s.isIntersecting).map((s) => s.target)),
  );
  waiting.forEach((formula) => watch.observe(formula));

  let begun = false;
  async function typesetTheRest() {
    if (begun) return;
    begun = true;
    while (waiting.size) {
      await typeset([...waiting].slice(0, 4));
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  for (const sign of ["scroll", "pointermove", "keydown", "touchstart", "focusin"])
    addEventListener(sign, typesetTheRest, { once: true, passive: true });
  addEventListener("beforeprint", typesetTheRest);
  addEventListener("load", () => setTimeout(typesetTheRest, 10_000));
})();

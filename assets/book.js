/** Small mends of the pages that only the browser can make. */

/** What scrolls sideways must be reachable by keyboard, and what does not must not be a stop on the way. */
function markScrolling() {
  for (const box of document.querySelectorAll(".bd-article mjx-container[display], .bd-article div.math, .bd-article pre")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else if (box.tagName !== "PRE") box.removeAttribute("tabindex");
  }
}

const typeset = () => window.MathJax?.startup?.promise?.then(markScrolling);
if (document.readyState === "complete") typeset();
else window.addEventListener("load", typeset);
markScrolling();
new ResizeObserver(markScrolling).observe(document.documentElement);
document.addEventListener("toggle", markScrolling, true); // a folded solution that opens

/* What every page does for itself: the contents' marker follows the reader, what is printed is light, and wide code
   can be reached by keyboard. */
(function () {
  "use strict";

  // The theme marks a heading when it enters the screen, so that it is wrong on the way up. (offline_pages.py
  // renames the list, for the theme to leave it alone.)
  function followReader(list) {
    var links = [].slice.call(list.querySelectorAll("a[href^='#']"));
    var headings = links.map(function (link) {
      var part = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      return part && (part.querySelector("h1, h2, h3, h4") || part);
    });
    var waiting = false;

    function mark() {
      waiting = false;
      var current = -1;
      var line = 110; // pixels: a heading above this line has been reached
      var atEnd = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
      headings.forEach(function (heading, i) {
        if (heading && (atEnd || heading.getBoundingClientRect().top <= line)) current = i;
      });
      links.forEach(function (link, i) {
        link.classList.toggle("active", i === current);
        if (i === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      [].forEach.call(list.querySelectorAll(".toc-entry"), function (entry) {
        entry.classList.toggle("active", current >= 0 && entry.contains(links[current]));
      });
    }

    function soon() {
      if (!waiting) window.requestAnimationFrame(mark);
      waiting = true;
    }

    window.addEventListener("scroll", soon, { passive: true });
    window.addEventListener("resize", soon);
    soon();
  }

  // Paper is white: a page that is dark on the screen is printed in the light theme.
  function printLight() {
    var root = document.documentElement;
    var before = null;
    window.matchMedia("print").addEventListener("change", function (event) {
      if (event.matches) {
        before = root.dataset.theme;
        root.dataset.theme = "light";
      } else if (before) {
        root.dataset.theme = before;
      }
    });
  }

  // Code that is wider than its place can be scrolled by keyboard. (The theme looks once, before fonts have come and
  // folds were opened.)
  function reachWideCode() {
    // All are measured before the first is changed, so that the page is laid out once.
    function look(pres) {
      var wide = pres.map(function (pre) {
        return pre.scrollWidth > pre.clientWidth || pre.scrollHeight > pre.clientHeight;
      });
      pres.forEach(function (pre, i) {
        pre.tabIndex = wide[i] ? 0 : -1;
      });
    }
    var blocks = [].slice.call(document.querySelectorAll("pre"));
    var resized = new ResizeObserver(function (entries) {
      look(
        entries.map(function (entry) {
          return entry.target;
        })
      );
    });
    blocks.forEach(function (pre) {
      resized.observe(pre); // which also tells when the fold around it opens
    });
    document.fonts.ready.then(function () {
      look(blocks);
    });
  }

  function start() {
    var list = document.getElementById("page-contents");
    if (list) followReader(list);
    printLight();
    reachWideCode();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

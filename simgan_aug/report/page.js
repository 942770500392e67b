"use strict";
// Without this script the page shows the same, before and after side by side.
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  root.classList.add("js");

  // ---- the divider between before and after
  function show(stage, value) {
    const slider = one(".slider", stage);
    const at = Math.min(100, Math.max(0, value));
    slider.value = at;
    stage.style.setProperty("--at", `${at}%`);
    stage.classList.toggle("all-after", at <= 1);
    stage.classList.toggle("all-before", at >= 99);
    const said = at <= 1 ? "all after" : at >= 99 ? "all before" : `${Math.round(at)} % before`;
    slider.setAttribute("aria-valuetext", said);
  }
  function flip(place) {
    const stage = place && one(".stage.pair", place);
    if (stage) show(stage, one(".slider", stage).value >= 50 ? 0 : 100);
  }
  function drag(event) {
    const stage = event.target.closest(".stage.pair");
    if (!stage || event.button !== 0) return;
    const handle = event.target.closest(".divider");
    if (stage.closest(".zoomed") && event.pointerType !== "mouse" && !handle) return; // it scrolls
    const move = (now) => {
      const box = stage.getBoundingClientRect();
      show(stage, ((now.clientX - box.left) / box.width) * 100);
    };
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", move);
    const end = () => stage.removeEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, end, { once: true });
    if (event.pointerType === "mouse") move(event);
    else stage.addEventListener("pointerup", (up) => near(event, up) && move(up), { once: true });
    one(".slider", stage).focus({ preventScroll: true, focusVisible: false });
    event.preventDefault();
  }
  const near = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) < 8; // a tap
  document.addEventListener("pointerdown", drag);
  document.addEventListener("input", (event) => {
    const stage = event.target.closest(".stage.pair");
    if (stage) show(stage, Number(event.target.value));
  });
  for (const stage of all(".stage.pair")) show(stage, 50);

  // ---- which pictures are shown
  const cards = all(".card");
  const visible = () => cards.filter((card) => !card.hidden);
  const chosen = { state: "all", category: "" };
  function filter(chip) {
    const { group, value } = chip.dataset;
    chosen[group] = value;
    for (const other of all(`.chip[data-group="${group}"]`))
      other.setAttribute("aria-pressed", String(other === chip));
    for (const card of cards) {
      const rejected = chosen.state === "all" || "rejected" in card.dataset;
      const named = !chosen.category || card.dataset.categories.split(" ").includes(chosen.category);
      card.hidden = !(rejected && named);
    }
    const count = visible().length;
    one("#count").textContent =
      count === cards.length ? `${count} picture${count === 1 ? "" : "s"}` : `${count} of ${cards.length} pictures`;
  }
  function toggleLabels() {
    const hidden = root.classList.toggle("no-labels");
    one("#toggle-labels").setAttribute("aria-pressed", String(!hidden));
  }

  // ---- from picture to picture
  let current = null;
  function mark(card) {
    if (current) current.classList.remove("current");
    current = card;
    if (card) card.classList.add("current");
  }
  const focusOf = (card) => one(".slider, .enlarge", card) || card;
  function step(by) {
    const shown = visible();
    if (!shown.length) return;
    const at = shown.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(shown.length - 1, Math.max(0, at + by));
    mark(shown[next]);
    if (dialog.open) return enlarge(shown[next]);
    current.tabIndex = -1;
    focusOf(current).focus({ preventScroll: true, focusVisible: true });
    current.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (card) mark(card);
  });

  // ---- one picture, enlarged
  const dialog = one("#enlarged");
  const view = one("#enlarged-view");
  let zoom = 1;
  let enlarged = null;
  function setZoom(value) {
    zoom = Math.min(16, Math.max(1, value));
    view.style.setProperty("--zoom", zoom);
    view.classList.toggle("zoomed", zoom > 1);
  }
  function enlarge(card) {
    if (!card || !one(".stage", card)) return;
    mark(card);
    enlarged = card;
    const inDialog = dialog.contains(document.activeElement) && document.activeElement.dataset.do;
    const parts = all(".stage, .near, .labels", card).filter((part) => !part.parentElement.closest(".near"));
    view.replaceChildren(...parts.map((part) => part.cloneNode(true)));
    one("#enlarged-name").textContent = one("h3", card).textContent;
    const shown = visible();
    one("#enlarged-place").textContent = `${shown.indexOf(card) + 1} / ${shown.length}`;
    setZoom(1);
    if (!dialog.open) dialog.showModal();
    const stage = one(".stage.pair", view);
    if (stage) show(stage, one(".slider", card).valueAsNumber);
    if (!inDialog) (one(".slider", view) || one("[data-do=close]")).focus({ focusVisible: true });
  }
  dialog.addEventListener("close", () => {
    view.replaceChildren();
    // The browser has given the focus back to the picture that it came from; this is a later one.
    focusOf(enlarged).focus({ preventScroll: true, focusVisible: true });
    enlarged.scrollIntoView({ block: "nearest" });
  });
  const deeds = {
    previous: () => step(-1),
    next: () => step(1),
    flip: () => flip(view),
    in: () => setZoom(zoom * 2),
    out: () => setZoom(zoom / 2),
    close: () => dialog.close(),
  };

  // ---- tables
  function sort(button) {
    const head = button.closest("th");
    const body = one("tbody", head.closest("table"));
    const column = [...head.parentElement.children].indexOf(head);
    const first = column === 0 ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentElement.children) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const value = (row) => row.children[column].dataset.value;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // unknown ones last, either way
      return sign * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
    });
    body.append(...rows);
  }

  // ---- clicks and keys
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.do) deeds[button.dataset.do]();
    else if (button.matches(".chip")) filter(button);
    else if (button.matches(".flip")) flip(button.closest(".card"));
    else if (button.matches(".enlarge")) enlarge(button.closest(".card"));
    else if (button.id === "toggle-labels") toggleLabels();
    else if (button.closest("thead")) sort(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pressed = event.target.closest("button, summary, a");
    const slider = event.target.matches(".slider");
    const keys = {
      j: () => step(1),
      k: () => step(-1),
      l: toggleLabels,
      f: () => flip(dialog.open ? view : current),
      "+": () => dialog.open && setZoom(zoom * 2),
      "=": () => dialog.open && setZoom(zoom * 2),
      "-": () => dialog.open && setZoom(zoom / 2),
    };
    if (slider) Object.assign(keys, { ArrowDown: keys.j, ArrowUp: keys.k, " ": keys.f });
    if (!pressed && current && !dialog.open) keys.Enter = () => enlarge(current);
    const deed = keys[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });
  addEventListener("beforeprint", () => all("details").forEach((each) => (each.open = true)));
})();

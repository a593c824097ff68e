for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a), y = key(b), order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const COLOURS = {{ colours }}, STYLES = {{ styles }};
for (const box of document.querySelectorAll(".mapped")) {
  const map = box.querySelector(".map"), points = [...map.querySelectorAll("circle")];
  const stored = box.querySelector(".pictures"), shown = box.querySelector(".shown");
  const pictures = stored ? JSON.parse(stored.textContent) : [];
  let at = -1;
  const paint = (way) => {
    points.forEach((point) => {
      const value = Number(point.dataset.v.split(" ")[way]), style = Math.floor(value / COLOURS);
      for (let number = 0; number < COLOURS; number++) point.classList.toggle(`c${number}`, number === value % COLOURS);
      for (let number = 0; number < STYLES; number++) point.classList.toggle(`s${number}`, number === style);
    });
    box.querySelectorAll(".legend").forEach((item, number) => { item.hidden = number !== way; });
  };
  const tell = (number) => {
    if (at >= 0) points[at].classList.remove("at");
    at = number;
    points[at].classList.add("at");
    box.querySelector(".pointed").textContent = points[at].querySelector("title").textContent;
    if (!shown) return;
    shown.hidden = !pictures[at];
    if (pictures[at]) shown.src = pictures[at];
  };
  box.querySelectorAll(".colouring input").forEach((input) => {
    input.addEventListener("change", () => paint(Number(input.value)));
  });
  map.addEventListener("pointerover", (event) => {
    const number = points.indexOf(event.target);
    if (number >= 0) tell(number);
  });
  map.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    tell((at + step + points.length) % points.length);
  });
  paint(0);
}

"use strict";
// Search and sort for tables, highlight in the map. The page is complete without this script.
document.documentElement.classList.add("scripted");

for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const before = table.parentElement.previousElementSibling;
  const box = before && before.matches("input[type=search]") ? before : null;
  if (box) {
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.n;
    return number === undefined ? cell.textContent.toLowerCase() : Number(number);
  };
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.slice().sort((a, b) => {
        const x = value(a, column), y = value(b, column);
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      body.append(...sorted);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
}

const map = document.querySelector("#map svg");
if (map) {
  const edges = Array.from(map.querySelectorAll(".edge"));
  const nodes = Array.from(map.querySelectorAll("[data-node]"));
  const verdicts = document.querySelector("#map-verdict");
  let chosen = null;
  const show = () => {
    const wanted = verdicts.value;
    const near = new Set();
    for (const edge of edges) {
      const ours = (chosen === null || edge.dataset.from === chosen || edge.dataset.to === chosen) &&
        (wanted === "" || edge.dataset.verdict === wanted);
      edge.classList.toggle("faded", !ours);
      if (ours) { near.add(edge.dataset.from); near.add(edge.dataset.to); }
    }
    for (const node of nodes) node.classList.toggle("faded", !near.has(node.dataset.node));
  };
  for (const node of nodes) {
    const choose = () => { chosen = chosen === node.dataset.node ? null : node.dataset.node; show(); };
    node.addEventListener("click", choose);
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
      if (event.key === "Escape") { chosen = null; show(); }
    });
  }
  verdicts.addEventListener("change", show);
}

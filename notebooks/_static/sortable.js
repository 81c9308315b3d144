// Tables of class "sortable" are sorted by a click on, or Enter at, the head of a column.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = table.querySelectorAll("thead th");
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "Sort";
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const text = (row) => row.cells[column].textContent.trim();
        const order = (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
        const number = (a, b) => Number(text(a)) - Number(text(b));
        const numbers = [...body.rows].every((row) => !Number.isNaN(Number(text(row))));
        const rows = [...body.rows].sort(numbers ? number : order);
        body.append(...(up ? rows : rows.reverse()));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    });
  }
});

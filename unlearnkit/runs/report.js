// Makes the tables of class "sortable" sortable. Without scripts they stand in the order they were written in.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const status = document.createElement("p");
  status.className = "status";
  status.setAttribute("role", "status");
  table.closest(".scroll").after(status);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") !== "ascending" : head.dataset.first !== "down";
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].map((row) => ({ row, text: value(row), number: parseFloat(value(row)) }));
      const numeric = head.classList.contains("number");
      const missing = ({ text, number }) => (numeric ? Number.isNaN(number) : text === "");
      rows.sort((a, b) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b); // what is missing stays last, either way
        const order = numeric ? a.number - b.number : a.text.localeCompare(b.text);
        return up ? order : -order;
      });
      body.append(...rows.map(({ row }) => row));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      status.textContent = `Sorted by ${button.textContent.trim()}, ${up ? "smallest" : "largest"} first.`;
    });
  });
}

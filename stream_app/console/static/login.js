"use strict";
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = document.getElementById("problem");
  problem.textContent = "";
  const token = new FormData(event.target).get("token").trim();
  try {
    const answer = await fetch("session", { headers: { Authorization: `Bearer ${token}` } });
    if (answer.ok) location.replace("./");
    else problem.textContent = "That is not the token.";
  } catch {
    problem.textContent = "The worker does not answer.";
  }
});

// Plays one sound at a time, and marks the current position on its spectrogram.
const players = [...document.querySelectorAll("audio")];
for (const player of players) {
  const line = player.closest("figure").querySelector(".now");
  const move = () => {
    line.style.left = `${(100 * player.currentTime) / (player.duration || 1)}%`;
    line.hidden = player.currentTime === 0;
    if (!player.paused) requestAnimationFrame(move);
  };
  player.addEventListener("play", () => {
    for (const other of players) if (other !== player) other.pause();
    move();
  });
  player.addEventListener("seeked", move);
}

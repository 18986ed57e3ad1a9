// Recommendations for a customer, read from Redis with nothing but Node.
//   node recommend.mjs 127.0.0.1:6379 USER [LIST] [ITEM]
// The same order as the Python reader: own list, neighbours of the item looked at, trending.
// A real shop uses its Redis client; the three commands stay the same.
import net from "node:net";

const [address = "127.0.0.1:6379", user = "", list = "home", item = ""] = process.argv.slice(2);

async function connect(hostPort) {
  const at = hostPort.lastIndexOf(":");
  const socket = net.createConnection(Number(hostPort.slice(at + 1)), hostPort.slice(0, at));
  await new Promise((ready, failed) => socket.once("connect", ready).once("error", failed));
  let read = Buffer.alloc(0);
  const chunks = socket[Symbol.asyncIterator]();
  const more = async () => {
    const { value, done } = await chunks.next();
    if (done) throw new Error("Redis closed the connection");
    read = Buffer.concat([read, value]);
  };
  return {
    async ask(...words) {
      const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
      socket.write(`*${words.length}\r\n${parts.join("")}`);
      let end;
      while ((end = read.indexOf("\r\n")) < 0) await more();
      const head = read.toString("utf8", 0, end);
      if (head[0] === "-") throw new Error(head.slice(1));
      const size = Number(head.slice(1)); // "$<bytes>"; -1: there is none
      const start = end + 2;
      if (size < 0) {
        read = read.subarray(start);
        return null;
      }
      while (read.length < start + size + 2) await more();
      const text = read.toString("utf8", start, start + size);
      read = read.subarray(start + size + 2);
      return JSON.parse(text);
    },
    close: () => socket.destroy(),
  };
}

const redis = await connect(address);
let origin = "nothing";
let entries = [];
for (const [name, ...command] of [
  ["customer", "HGET", `rec:${user}`, list],
  ["similar", "GET", `similar:${item}`],
  ["trending", "GET", "trending:all"],
]) {
  entries = (await redis.ask(...command)) ?? [];
  if (entries.length) {
    origin = name;
    break;
  }
}
console.log(JSON.stringify({ origin, items: entries.map((entry) => entry.item_id) }));
redis.close();

// BullMQ flows: one parent with N children of the size of a child here, from the start of the flow to the parent's result.
// The parent reads and adds up what its children gave. `node flow.mjs <url> <children>`

import { FlowProducer, QueueEvents, Worker } from "bullmq";

const [url, count] = [process.argv[2], Number(process.argv[3])];
const connection = { host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null };
const CONCURRENCY = 64;

const summarize = (page) => ({ value: String(page.page - 100_000).padStart(8, "0") });

async function gather(job) {
  const outputs = Object.values(await job.getChildrenValues());
  return outputs.reduce((sum, output) => sum + Number(output.value), 0);
}

async function runFlow(flow, events, children) {
  const child = (number) => ({
    name: "child",
    queueName: "children",
    data: { page: 100_000 + number, name: "abcdefg" },
  });
  const start = performance.now();
  const tree = await flow.add({
    name: "parent",
    queueName: "parents",
    data: {},
    children: Array.from({ length: children }, (_, number) => child(number)),
  });
  const sum = await tree.job.waitUntilFinished(events);
  const seconds = (performance.now() - start) / 1000;
  if (sum !== (children * (children - 1)) / 2) throw new Error(`${children} children gave ${sum}`);
  return seconds;
}

const workers = [
  new Worker("children", async (job) => summarize(job.data), { connection, concurrency: CONCURRENCY }),
  new Worker("parents", gather, { connection }),
];
const flow = new FlowProducer({ connection });
const events = new QueueEvents("parents", { connection });
await Promise.all([...workers, events].map((part) => part.waitUntilReady()));
await runFlow(flow, events, 100);
const seconds = await runFlow(flow, events, count);
console.log(`seconds ${seconds}\nrate ${count / seconds}`);
await Promise.all([...workers, flow, events].map((part) => part.close()));

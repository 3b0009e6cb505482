import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeDescription } from "./description.ts";

test("the node from the Engine's info", () => {
  const described = nodeDescription({
    Name: "host1",
    OSType: "linux",
    Architecture: "x86_64",
    NCPU: 2,
    MemTotal: 1024,
    ServerVersion: "20.10.24",
    Labels: ["zone=a", "flag", "url=a=b"],
    Plugins: { Volume: ["local"], Network: ["host", "bridge", "null"], Log: ["syslog", "json-file"] },
  });
  assert.deepEqual(described, {
    Hostname: "host1",
    Platform: { Architecture: "x86_64", OS: "linux" },
    Resources: { NanoCPUs: 2e9, MemoryBytes: 1024 },
    Engine: {
      EngineVersion: "20.10.24",
      Labels: { zone: "a", flag: "", url: "a=b" },
      Plugins: [
        { Type: "Log", Name: "json-file" },
        { Type: "Log", Name: "syslog" },
        { Type: "Network", Name: "bridge" },
        { Type: "Network", Name: "host" },
        { Type: "Network", Name: "null" },
        { Type: "Network", Name: "overlay" },
        { Type: "Volume", Name: "local" },
      ],
    },
  });
});

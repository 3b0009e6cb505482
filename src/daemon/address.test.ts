import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { defaultAdvertiseAddress, formatAddress, resolveAddress } from "./address.ts";

const v4 = (address: string, internal = false) => ({ address, family: "IPv4", internal });
const v6 = (address: string) => ({ address, family: "IPv6", internal: false });
const one = { lo: [v4("127.0.0.1", true)], eth0: [v4("10.77.0.1"), v6("fe80::1")], docker0: [v4("172.17.0.1")] };
const two = { ...one, eth1: [v4("10.78.0.1")] };

describe("swarm addresses", () => {
  it("takes an IP or an interface, with or without a port", () => {
    const resolve = (text: string) => formatAddress(resolveAddress(text, one, "listen address"));
    assert.equal(resolve("0.0.0.0:2377"), "0.0.0.0:2377");
    assert.equal(resolve("10.1.2.3"), "10.1.2.3:2377");
    assert.equal(resolve("eth0:4000"), "10.77.0.1:4000");
    assert.equal(formatAddress(resolveAddress("eth0", one, "advertise address", 4000)), "10.77.0.1:4000");
    assert.equal(resolve("::1"), "[::1]:2377");
    assert.equal(resolve("[fd00::1]:99"), "[fd00::1]:99");
  });

  it("refuses what is neither, with Docker's text", () => {
    for (const text of ["nope", "10.1.2.3:99999", "a:b:c", ":2377", "eth0:x"]) {
      assert.throws(() => resolveAddress(text, one, "advertise address"), {
        code: "InvalidArgument",
        message: "advertise address must be an IP address or network interface (with optional port number)",
      });
    }
  });

  it("advertises the only address there is, and asks where there are several", () => {
    const listen = { host: "0.0.0.0", port: 2377 };
    assert.deepEqual(defaultAdvertiseAddress(listen, one), { host: "10.77.0.1", port: 2377 });
    assert.deepEqual(defaultAdvertiseAddress({ host: "10.9.9.9", port: 1 }, two), { host: "10.9.9.9", port: 1 });
    assert.throws(
      () => defaultAdvertiseAddress(listen, two),
      /multiple addresses on different interfaces \(10.77.0.1 on eth0 and 10.78.0.1 on eth1\)/,
    );
    assert.throws(() => defaultAdvertiseAddress(listen, { lo: one.lo }), /no addresses/);
  });
});

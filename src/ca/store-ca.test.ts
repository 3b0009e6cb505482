import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import { storeCertificates } from "./store-ca.ts";

describe("the store's CA", () => {
  const clock = new FakeClock();
  const certificates = storeCertificates(() => clock.now());

  it("issues certificates for servers and clients at an address or a name", async () => {
    const authority = await certificates.newAuthority();
    const root = new X509Certificate(authority.certificate);
    assert.ok(root.ca);
    for (const [host, expected] of [
      ["10.1.2.3", "IP Address:10.1.2.3"],
      ["fd00::7", "IP Address:FD00:0:0:0:0:0:0:7"],
      ["manager.example", "DNS:manager.example"],
    ] as const) {
      const leaf = new X509Certificate((await certificates.issue(authority, "n1", host)).certificate);
      assert.equal(leaf.subject, "CN=n1");
      assert.equal(leaf.subjectAltName, expected);
      assert.ok(leaf.checkIssued(root) && leaf.verify(root.publicKey) && !leaf.ca);
      assert.ok(leaf.validFromDate.getTime() < clock.now() && leaf.validToDate.getTime() > clock.now());
      assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    }
  });

  it("of another cluster signs nothing of this one", async () => {
    const [ours, theirs] = [await certificates.newAuthority(), await certificates.newAuthority()];
    const leaf = new X509Certificate((await certificates.issue(theirs, "n1", "10.1.2.3")).certificate);
    assert.ok(!leaf.verify(new X509Certificate(ours.certificate).publicKey));
  });
});

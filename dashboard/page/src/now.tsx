// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { State } from './api'
import { age, bytes, clock, cores, percent, plural, poolOf, share, short, usd, zoneOf } from './format'
import { Card, Meter } from './parts'

// Now is the cluster at this moment.
export function Now(p: { s: State; open: (node: string) => void; go: (view: string) => void }) {
  const s = p.s
  const b = s.bound
  const flight = s.nodes.filter((n) => n.phase !== 'Ready').sort((x, y) => +new Date(x.since) - +new Date(y.since))
  return (
    <>
      <section class="cards" aria-label="Totals">
        <Card name="Cost" id="usd" note={s.unpriced ? plural(s.unpriced, 'node') + ' without a known price' : usd(s.usdPerHour * 730, 0) + ' a month at this rate'}>{usd(s.usdPerHour)}<small>/h</small></Card>
        <Card name="Proven bound" id="bound" note={b ? `no placement of ${plural(b.pods, 'pod')} costs less` : 'being proven'}>{b ? <>{usd(b.usdPerHour)}<small>/h</small></> : '…'}</Card>
        <Card name="Gap" id="gap" tone={b && b.gap > 0.2 ? 'warn' : ''} note={b ? `${usd(b.cost)}/h for these pods at ${clock(b.time)}` : ''}>{b ? percent(b.gap, 1) : '…'}</Card>
        <Card name="Nodes" id="nodes" note={flight.length ? flight.length + ' in flight' : 'all ready'}>{s.nodes.length.toLocaleString('en')}</Card>
        <Card name="Pods running" id="running" note={`${s.pods.pending} pending, ${s.pods.assigned} of them have a place`}>{s.pods.running.toLocaleString('en')}</Card>
        <Card name="Pods refused" id="refused" tone={s.pods.refused ? 'bad' : ''} note={s.pods.refused ? <a href="#waiting">why?</a> : 'every pod has a place'}>{s.pods.refused.toLocaleString('en')}</Card>
      </section>
      <section class="two">
        <div class="box">
          <h2>Requested</h2>
          <dl class="bars">
            <dt>CPU</dt><dd><Meter value={share(s.cpu)} label="CPU requested" /></dd><dd class="num">{percent(share(s.cpu))}</dd><dd class="num dim">{cores(s.cpu.requested)} of {cores(s.cpu.allocatable)} cores</dd>
            <dt>Memory</dt><dd><Meter value={share(s.memory)} label="Memory requested" /></dd><dd class="num">{percent(share(s.memory))}</dd><dd class="num dim">{bytes(s.memory.requested)} of {bytes(s.memory.allocatable)}</dd>
          </dl>
          <h2>Quota</h2>
          {s.quotas.length === 0 && <p class="dim">No quota is known yet.</p>}
          <dl class="bars">
            {s.quotas.slice(0, 8).map((q) => (
              <>
                <dt title={q.name}>{q.title || q.name}</dt>
                <dd><Meter value={q.limit ? q.used / q.limit : 1} warn={0.9} label={q.title || q.name} /></dd>
                <dd class="num">{percent(q.limit ? q.used / q.limit : 1)}</dd>
                <dd class="num dim">{q.used.toLocaleString('en')} of {q.limit.toLocaleString('en')} vCPUs</dd>
              </>
            ))}
          </dl>
        </div>
        <div class="box">
          <h2>In flight</h2>
          {flight.length === 0 ? <p class="dim">Nothing is being bought, booted or drained.</p> : (
            <table>
              <thead><tr><th>Phase</th><th>Machine</th><th>Size</th><th class="num">For</th></tr></thead>
              <tbody>
                {flight.slice(0, 12).map((n) => (
                  <tr key={n.name}>
                    <td><span class={'tag ' + n.phase}>{n.phase}</span></td>
                    <td><button class="link" onClick={() => p.open(n.name)}>{n.name}</button></td>
                    <td>{short(n.size)}</td>
                    <td class="num">{age(n.since, s.time)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          {flight.length > 12 && <p class="dim">and {flight.length - 12} more on the <a href="#map">map</a></p>}
        </div>
      </section>
      <section class="box">
        <h2>Machines</h2>
        <div class="scroll" tabIndex={0} role="region" aria-label="Machines by NodePool, size, zone and capacity type">
          <table>
            <thead><tr><th>NodePool</th><th>Size</th><th>Zone</th><th>Capacity</th><th class="num">Count</th><th class="num">$/h</th><th class="num">Share</th></tr></thead>
            <tbody>
              {s.groups.slice(0, 60).map((g) => (
                <tr key={g.pool + g.size + g.zone + g.capacityType}>
                  <td>{poolOf(g)}</td><td>{short(g.size)}</td><td>{zoneOf(g)}</td><td>{g.capacityType}</td>
                  <td class="num">{g.count}</td><td class="num">{usd(g.usdPerHour, 3)}</td><td class="num">{percent(s.usdPerHour ? g.usdPerHour / s.usdPerHour : 0)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {s.groups.length > 60 && <p class="dim">and {s.groups.length - 60} more groups</p>}
        </div>
      </section>
    </>
  )
}

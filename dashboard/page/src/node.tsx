// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { useEffect, useState } from 'preact/hooks'
import { get, NodeDetail } from './api'
import { age, bytes, cores, moment, percent, plural, share, short, usd, zoneOf } from './format'
import { Meter, Panel } from './parts'

// NodePanel is a node: why it was bought, what runs on it, why it stays.
export function NodePanel(p: { name: string; at: string; close: () => void }) {
  const [d, set] = useState<NodeDetail | null>()
  const [failed, setFailed] = useState('')
  useEffect(() => {
    let gone = false
    get<NodeDetail>('/api/v1/node?name=' + encodeURIComponent(p.name)).then((v) => { if (!gone) set(v ?? null) }, (e: Error) => { if (!gone) setFailed(e.message) })
    return () => { gone = true }
  }, [p.name, p.at])
  const n = d?.node
  return (
    <Panel title={p.name} close={p.close}>
      {failed && <p class="bad">{failed}</p>}
      {d === null && <p>This node does not exist any more.</p>}
      {d === undefined && !failed && <p class="dim">…</p>}
      {n && (
        <>
          <p><span class={'tag ' + n.phase}>{n.phase}</span> {short(n.size)} · {zoneOf(n)} · {n.capacityType} · <b>{n.priced ? usd(n.usdPerHour, 4) + '/h' : 'price not known'}</b></p>
          <dl class="bars">
            <dt>CPU</dt><dd><Meter value={share(n.cpu)} label="CPU requested" /></dd><dd class="num">{percent(share(n.cpu))}</dd><dd class="num dim">{cores(n.cpu.requested)} of {cores(n.cpu.allocatable)}</dd>
            <dt>Memory</dt><dd><Meter value={share(n.memory)} label="Memory requested" /></dd><dd class="num">{percent(share(n.memory))}</dd><dd class="num dim">{bytes(n.memory.requested)} of {bytes(n.memory.allocatable)}</dd>
          </dl>
          <h3>Why it stays</h3>
          <p><span class="tag">{n.stays.code}</span> {n.stays.text}</p>
          <h3>Why it was bought</h3>
          <p>{n.why || (n.pool ? 'The decision was not recorded.' : 'It is of an agent pool.')}</p>
          {d.bought && (
            <table>
              <thead><tr><th>Offering</th><th>Zone</th><th>Capacity</th><th class="num">$/h</th></tr></thead>
              <tbody>
                {[d.bought, ...(d.bought.alternatives ?? [])].map((o, i) => (
                  <tr key={i}><td>{short(o.size)}{i === 0 && ' (chosen)'}</td><td>{zoneOf(o)}</td><td>{o.capacityType}</td><td class="num">{usd(o.usdPerHour, 4)}</td></tr>
                ))}
              </tbody>
            </table>
          )}
          <dl class="facts">
            <dt>Age</dt><dd>{age(n.created, p.at)} <span class="dim">since {moment(n.created)}</span></dd>
            {n.pool && <><dt>NodePool</dt><dd>{n.pool}</dd></>}
            {n.claim && <><dt>NodeClaim</dt><dd>{n.claim}</dd></>}
            {n.image && <><dt>Image</dt><dd>{n.image}</dd></>}
            {n.drift && <><dt>Drift</dt><dd>{n.drift}</dd></>}
          </dl>
          <h3>{plural(n.pods, 'pod')}</h3>
          <table>
            <thead><tr><th>Pod</th><th class="num">CPU</th><th class="num">Memory</th></tr></thead>
            <tbody>{d.pods.map((q) => <tr key={q.name}><td title={q.owner}>{q.name}</td><td class="num">{cores(q.cpu)}</td><td class="num">{bytes(q.memory)}</td></tr>)}</tbody>
          </table>
        </>
      )}
    </Panel>
  )
}

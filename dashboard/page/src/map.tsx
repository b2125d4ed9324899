// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { hierarchy, treemap, HierarchyRectangularNode } from 'd3-hierarchy'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { Node, State } from './api'
import { moment, percent, poolOf, share, short, usd, zoneOf } from './format'
import { useSize, VirtualList } from './parts'

type Item = { name: string; node?: Node; children?: Item[] }
type Rect = HierarchyRectangularNode<Item>

const groupings: Record<string, (n: Node) => string> = {
  pool: poolOf, zone: zoneOf, size: (n) => short(n.size) || 'unknown', capacity: (n) => n.capacityType || 'unknown',
}

// Map is a treemap of the nodes: the area is the price, the fill what is requested.
export function Map(p: { s: State; at?: string; back: () => void; open: (node: string) => void; theme: string }) {
  const [by, setBy] = useState('pool')
  const [filter, setFilter] = useState('')
  const [ref, size] = useSize<HTMLDivElement>()
  const canvas = useRef<HTMLCanvasElement>(null)
  const [hover, setHover] = useState<string>()
  const nodes = useMemo(() => {
    const f = filter.toLowerCase()
    return f ? p.s.nodes.filter((n) => [n.name, n.pool, n.size, n.zone, n.capacityType, n.phase, n.stays?.code, n.drift].some((v) => v?.toLowerCase().includes(f))) : p.s.nodes
  }, [p.s, filter])
  const laid = useRef(0) // milliseconds
  const root = useMemo(() => {
    const start = performance.now()
    const r = layout(nodes, groupings[by], size.width, size.height)
    laid.current = performance.now() - start
    return r
  }, [nodes, by, size.width, size.height])
  const leaves = useMemo(() => root.leaves().filter((l) => l.data.node), [root])

  useEffect(() => {
    const c = canvas.current
    if (!c || !size.width) return
    const start = performance.now()
    draw(c, root, leaves, size.width, size.height, hover)
    c.dataset.frame = (laid.current + performance.now() - start).toFixed(1)
  }, [root, hover, p.theme])

  const find = (e: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect()
    const x = e.clientX - box.left
    const y = e.clientY - box.top
    return leaves.find((l) => x >= l.x0 && x < l.x1 && y >= l.y0 && y < l.y1)?.data.node
  }
  const key = (e: KeyboardEvent) => {
    const i = leaves.findIndex((l) => l.data.name === hover)
    if (e.key === 'Enter' && i >= 0) return p.open(leaves[i].data.name)
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[e.key]
    if (!step || !leaves.length) return
    e.preventDefault()
    setHover(i < 0 ? leaves[0].data.name : neighbour(leaves, leaves[i], step[0], step[1]).data.name)
  }
  const told = hover ? p.s.nodes.find((n) => n.name === hover) : undefined
  return (
    <>
      {p.at && <p class="past" role="status">As it was on {moment(p.at)} <button onClick={p.back}>Back to now</button></p>}
      <div class="tools">
        <label>Group by <select value={by} onChange={(e) => setBy((e.target as HTMLSelectElement).value)}>
          {Object.keys(groupings).map((g) => <option key={g} value={g}>{g === 'capacity' ? 'capacity type' : g}</option>)}
        </select></label>
        <label class="grow">Filter <input type="search" value={filter} placeholder="name, pool, size, zone, phase …" onInput={(e) => setFilter((e.target as HTMLInputElement).value)} /></label>
        <span class="legend"><i class="ondemand" />on-demand <i class="spot" />spot <i class="fixed" />agent pool <i class="moving" />in flight</span>
      </div>
      <div class="map" ref={ref}>
        <canvas ref={canvas} tabIndex={0} role="img" aria-label={`Treemap of ${nodes.length} nodes; arrow keys move, Enter opens. The table below has the same nodes.`}
          onMouseMove={(e) => setHover(find(e)?.name)} onMouseLeave={() => setHover(undefined)} onClick={(e) => { const n = find(e); if (n) p.open(n.name) }} onKeyDown={key} />
      </div>
      <p class="told" aria-live="polite">
        {told ? <><b>{told.name}</b> {short(told.size)} {zoneOf(told)} {told.capacityType} · {usd(told.usdPerHour, 4)}/h · CPU {percent(share(told.cpu))} · {told.pods} pods · {told.stays?.text || told.phase}</>
          : `${nodes.length.toLocaleString('en')} nodes, ${usd(nodes.reduce((a, n) => a + n.usdPerHour, 0))}/h. Area is price, fill is CPU requested.`}
      </p>
      <VirtualList items={nodes} row={30} label="Nodes" id={(n) => n.name} open={(n) => p.open(n.name)}
        head={<><span role="columnheader">Node</span><span role="columnheader">Size</span><span role="columnheader" class="num">$/h</span><span role="columnheader" class="num">CPU</span><span role="columnheader" class="wide">Why it stays</span></>}
        render={(n) => <><span role="cell">{n.name}</span><span role="cell">{short(n.size)}</span><span role="cell" class="num">{n.priced ? usd(n.usdPerHour, 3) : '?'}</span><span role="cell" class="num">{percent(share(n.cpu))}</span><span role="cell" class="wide dim">{n.stays?.text || n.phase}</span></>} />
    </>
  )
}

function layout(nodes: Node[], by: (n: Node) => string, width: number, height: number): Rect {
  const groups: Record<string, Item> = {}
  for (const n of nodes) {
    const g = by(n)
    ;(groups[g] ??= { name: g, children: [] }).children!.push({ name: n.name, node: n })
  }
  const least = Math.max(0.005, ...nodes.map((n) => n.usdPerHour)) / 50 // nodes without a price stay visible
  const h = hierarchy<Item>({ name: '', children: Object.values(groups) })
    .sum((d) => (d.node ? Math.max(d.node.usdPerHour, least) : 0))
    .sort((a, b) => (b.value ?? 0) - (a.value ?? 0) || (a.data.name < b.data.name ? -1 : 1))
  return treemap<Item>().size([width, height]).paddingTop((d) => (d.depth === 1 ? 20 : 0)).paddingInner((d) => (d.depth === 0 ? 4 : 1)).round(true)(h)
}

// neighbour returns the nearest leaf in a direction, the same one if there is none.
function neighbour(leaves: Rect[], from: Rect, dx: number, dy: number): Rect {
  const cx = (from.x0 + from.x1) / 2
  const cy = (from.y0 + from.y1) / 2
  let best = from
  let least = Infinity
  for (const l of leaves) {
    const x = (l.x0 + l.x1) / 2 - cx
    const y = (l.y0 + l.y1) / 2 - cy
    const along = x * dx + y * dy
    if (l === from || along <= 0) continue
    const d = along + 3 * Math.abs(x * dy + y * dx)
    if (d < least) { least = d; best = l }
  }
  return best
}

function draw(c: HTMLCanvasElement, root: Rect, leaves: Rect[], width: number, height: number, hover?: string) {
  const scale = devicePixelRatio || 1
  c.width = width * scale
  c.height = height * scale
  c.style.width = width + 'px'
  c.style.height = height + 'px'
  const g = c.getContext('2d')!
  g.setTransform(scale, 0, 0, scale, 0, 0)
  const css = getComputedStyle(document.documentElement)
  const colour = (name: string) => css.getPropertyValue('--' + name).trim()
  const [text, surface, line] = ['text', 'sunken', 'line'].map(colour)
  const fills: Record<string, string> = { 'on-demand': colour('ondemand'), spot: colour('spot'), fixed: colour('fixed'), reserved: colour('ondemand') }
  const moving = colour('moving')
  const focus = colour('accent')
  g.clearRect(0, 0, width, height)
  g.textBaseline = 'middle'
  g.font = '600 12px system-ui, sans-serif'
  for (const group of root.children ?? []) {
    g.fillStyle = text
    const w = group.x1 - group.x0
    const sum = (group.children ?? []).reduce((a, l) => a + (l.data.node?.usdPerHour ?? 0), 0)
    const label = `${group.data.name}  ${group.leaves().length} · ${usd(sum)}/h`
    if (w > 40) clipped(g, label, group.x0 + 4, group.y0 + 10, w - 8)
  }
  g.font = '11px system-ui, sans-serif'
  for (const l of leaves) {
    const n = l.data.node!
    const [w, h] = [l.x1 - l.x0, l.y1 - l.y0]
    if (w < 1 || h < 1) continue
    g.fillStyle = surface
    g.fillRect(l.x0, l.y0, w, h)
    g.fillStyle = n.phase !== 'Ready' ? moving : n.pool ? fills[n.capacityType ?? ''] ?? fills['on-demand'] : fills.fixed
    const filled = n.phase === 'Ready' || n.phase === 'Draining' ? Math.min(1, share(n.cpu)) * h : h
    g.fillRect(l.x0, l.y1 - filled, w, filled)
    if (w > 2 && h > 2) { g.strokeStyle = line; g.lineWidth = 1; g.strokeRect(l.x0 + 0.5, l.y0 + 0.5, w - 1, h - 1) }
    if (w > 46 && h > 16) {
      g.fillStyle = text
      clipped(g, short(n.size) || n.phase, l.x0 + 4, l.y0 + 9, w - 8)
      if (h > 32) { clipped(g, n.phase === 'Ready' ? percent(share(n.cpu)) : n.phase, l.x0 + 4, l.y0 + 23, w - 8) }
    }
    if (n.name === hover) { g.strokeStyle = focus; g.lineWidth = 3; g.strokeRect(l.x0 + 1.5, l.y0 + 1.5, w - 3, h - 3) }
  }
}

// clipped draws as much of a text as fits.
function clipped(g: CanvasRenderingContext2D, s: string, x: number, y: number, width: number) {
  if (g.measureText(s).width > width) {
    while (s.length > 1 && g.measureText(s + '…').width > width) s = s.slice(0, -1)
    s += '…'
  }
  g.fillText(s, x, y)
}

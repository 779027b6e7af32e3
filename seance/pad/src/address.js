// Where this page is, and so where its document is.
//
// The page is shown at the share link itself: /c/ROOM, perhaps under a base path, perhaps with the
// name of a document behind it. The same address with ws instead of http is what y-websocket wants.
// The relay says at /c/ROOM/status whether the host is there.

/**
 * @param {Location | URL} location
 * @return {{ base: string, name: string, params: Object<string, string>, link: string, status: string }}
 */
export const addressFrom = (location) => {
  const [, room, name] = /^(.*?\/c\/[^/]+)\/?(.*)$/.exec(location.pathname) ?? [null, location.pathname, ""]
  const scheme = location.protocol === "https:" ? "wss:" : "ws:"
  return {
    base: `${scheme}//${location.host}${room}`,
    name: name || "pad",
    params: Object.fromEntries(new URLSearchParams(location.search)),
    status: `${location.origin}${room}/status${location.search}`,
    link: `${location.origin}${location.pathname}${location.search}`,
  }
}

"""Source of a SteamVR client library that reads devices from a file, and how to build it.

The real openvr package loads ``<runtime>/bin/linux64/vrclient.so`` and asks it for
``IVRClientCore_003``, then for ``FnTable:IVRSystem_0xx``: an array of function pointers in the order
of ``openvr.IVRSystem_FnTable``. Both are provided here; what is not needed does nothing.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

MAX_DEVICES, MAX_EVENTS = 64, 64
HEADER = struct.Struct("<IIII")
"""sequence (odd while writing), events so far, running, reserved"""
EVENT = struct.Struct("<II")
DEVICE = struct.Struct("<i32s32sf12f3f3fi??2x")
EVENTS_AT = HEADER.size
DEVICES_AT = EVENTS_AT + MAX_EVENTS * EVENT.size
FILE_SIZE = DEVICES_AT + MAX_DEVICES * DEVICE.size

SOURCE = r"""
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct { float m[3][4]; float velocity[3], spin[3]; int32_t result; bool valid, connected; } Pose;
typedef struct { int32_t kind; char serial[32], model[32]; float battery; Pose pose; } Device;
typedef struct { uint32_t type, index; } Event;
typedef struct {
  volatile uint32_t sequence, events, running, reserved;
  Event ring[64];
  Device devices[64];
} Shared;
static Shared *shared;
static uint32_t seen;

static void copy_device(uint32_t i, Device *out) {
  uint32_t before;
  int tries = 0; /* a writer that was stopped while writing must not hang its readers */
  do {
    while (((before = shared->sequence) & 1) && ++tries < 1000000) {}
    __sync_synchronize();
    memcpy(out, &shared->devices[i], sizeof *out);
    __sync_synchronize();
  } while (shared->sequence != before && ++tries < 1000000);
}
static void get_poses(int origin, float ahead, Pose *out, uint32_t n) {
  Device d;
  for (uint32_t i = 0; i < n && i < 64; i++) { copy_device(i, &d); out[i] = d.pose; }
}
static int get_class(uint32_t i) { return i < 64 ? shared->devices[i].kind : 0; }
static bool is_connected(uint32_t i) { return i < 64 && shared->devices[i].pose.connected; }
static uint32_t get_string(uint32_t i, int property, char *buffer, uint32_t size, int *error) {
  Device d;
  if (i >= 64 || !shared->devices[i].kind) { if (error) *error = 5; return 0; }
  copy_device(i, &d);
  const char *text = property == 1002 ? d.serial : property == 1001 ? d.model : 0;
  if (!text) { if (error) *error = 4; return 0; }
  uint32_t need = strlen(text) + 1;
  if (error) *error = need > size ? 3 : 0;
  if (buffer && size >= need) memcpy(buffer, text, need);
  return need;
}
static float get_float(uint32_t i, int property, int *error) {
  if (property == 1012 && i < 64 && shared->devices[i].kind) {
    if (error) *error = 0;
    return shared->devices[i].battery;
  }
  if (error) *error = 4;
  return 0;
}
static bool poll_event(uint32_t *event, uint32_t size) {
  if (seen == shared->events) return false;
  Event next = shared->ring[seen++ % 64];
  memset(event, 0, size);
  event[0] = next.type;
  event[1] = next.index;
  return true;
}
static const char *runtime_version(void) { return "emulated"; }
static void nothing(void) {}

static const char *names[] = {
#include "names.inc"
};
static void *table[sizeof names / sizeof *names];
static struct { const char *name; void *function; } known[] = {
  {"getDeviceToAbsoluteTrackingPose", get_poses}, {"getTrackedDeviceClass", get_class},
  {"isTrackedDeviceConnected", is_connected}, {"getStringTrackedDeviceProperty", get_string},
  {"getFloatTrackedDeviceProperty", get_float}, {"pollNextEvent", poll_event},
  {"getRuntimeVersion", runtime_version},
};

static int32_t core_init(void *self, int application, const char *info) {
  int fd = open(SHARED_FILE, O_RDWR);
  if (fd < 0) return 100;
  shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) { shared = 0; return 100; }
  if (!shared->running) { munmap(shared, sizeof *shared); shared = 0; return 121; }
  seen = shared->events;
  return 0;
}
static void core_cleanup(void *self) {
  if (shared) munmap(shared, sizeof *shared);
  shared = 0;
}
static int32_t core_is_valid(void *self, const char *version) {
  return strncmp(version, "IVRSystem_", 10) ? 105 : 0;
}
static void *core_generic(void *self, const char *name, int32_t *error) {
  if (strncmp(name, "FnTable:IVRSystem_", 18)) { if (error) *error = 105; return 0; }
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    table[i] = nothing;
    for (unsigned k = 0; k < sizeof known / sizeof *known; k++)
      if (!strcmp(names[i], known[k].name)) table[i] = known[k].function;
  }
  if (error) *error = 0;
  return table;
}
static bool core_hmd(void *self) { return false; }
static const char *core_english(void *self, int error) { return "emulated error"; }
static const char *core_id(void *self, int error) { return "VRInitError_Emulated"; }
static void *methods[] = {
  core_init, core_cleanup, core_is_valid, core_generic, core_hmd, core_english, core_id,
};
static struct { void **methods; } core = {methods};

__attribute__((visibility("default"))) void *VRClientCoreFactory(const char *name, int *error) {
  bool right = !strcmp(name, "IVRClientCore_003");
  if (error) *error = right ? 0 : 105;
  return right ? &core : 0;
}
"""


class NoCompiler(RuntimeError):
    """There is no C compiler, or it failed."""


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the runtime into ``folder``; (path registry for openvr, shared file of devices)."""
    import openvr

    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("the SteamVR emulator needs a C compiler (cc, gcc or clang)")
    library = folder / "bin" / "linux64" / "vrclient.so"
    library.parent.mkdir(parents=True)
    shared = folder / "devices.bin"
    shared.write_bytes(bytes(FILE_SIZE))
    (folder / "vrclient.c").write_text(SOURCE)
    fields = [name for name, _ in openvr.IVRSystem_FnTable._fields_]
    (folder / "names.inc").write_text(",\n".join(f'"{name}"' for name in fields))
    result = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-w", f'-DSHARED_FILE="{shared}"', "-o",
         str(library), str(folder / "vrclient.c")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise NoCompiler(f"{compiler} failed: {result.stderr[-2000:]}")
    registry = folder / "openvrpaths.vrpath"
    places = {"runtime": [str(folder)], "config": [str(folder)], "log": [str(folder)]}
    registry.write_text(
        json.dumps({**places, "external_drivers": None, "version": 1, "jsonid": "vrpathreg"})
    )
    return registry, shared

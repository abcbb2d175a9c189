// Union-find that all threads work on at once (after Playne & Hawick 2018, Komura 2015).
//
// parent[i] is an element of i's set that does not come after i. Links are made by atomicMin, so parents only ever
// decrease, whatever the order in which threads run, and the root of a set is its first element.

#pragma once

// Other threads link meanwhile: what is read may be out of date, but is always an element of the same set. On the way,
// elements are linked to their parents' parents, so that long rows of single links are halved by each thread that walks
// along them.
__device__ inline int root_of(int* parent, int i) {
    int above = __ldcv(parent + i);
    while (above != i) {
        const int next = __ldcv(parent + above);
        if (next != above) atomicMin(parent + i, next);
        i = above;
        above = next;
    }
    return i;
}

__device__ inline void unite(int* parent, int a, int b) {
    while (true) {
        a = root_of(parent, a);
        b = root_of(parent, b);
        if (a == b) return;
        const int later = max(a, b), earlier = min(a, b);
        const int old = atomicMin(parent + later, earlier);
        if (old == later) return;  // it was still a root
        a = old;                   // another thread linked it first: unite what that linked it to
        b = earlier;
    }
}
